"""A real PostgreSQL for every test that asks for one, and none for a run that asks for none.

EKIDEN_TEST_PG_BIN runs the tests on the programs of another PostgreSQL than the wheel's.
TMPDIR says where their files are; without it they are in memory, where there is enough of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import structlog

from ekiden.store.embedded import EmbeddedServer

_TEMPLATE = "ekiden_template"
_numbers = count(1)

_MEMORY = Path("/dev/shm")
_ENOUGH = 4 * 2**30  # bytes; a run needs about one
_RAM = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Put every temporary file into memory: a database a test is 400 files, made and removed."""
    if "TMPDIR" in os.environ or not _is_roomy(_MEMORY):
        return
    for left in _MEMORY.glob("ekiden-tests-*"):  # by a run that was killed
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = _MEMORY / f"ekiden-tests-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of another process of this number
    folder.mkdir()
    folder.chmod(0o755)  # accounts that tests change to go through it
    config.stash[_RAM] = folder
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # asks the environment again


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back. What failed and is to be looked at: run it with TMPDIR=/tmp."""
    if folder := config.stash.get(_RAM, None):
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["TMPDIR"]
        tempfile.tempdir = None


def _is_roomy(folder: Path) -> bool:
    """Whether it and the memory it is in have room, and programs may be kept there."""
    if not folder.is_dir():
        return False
    there = os.statvfs(folder)
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(known["MemAvailable"].removesuffix("kB")) * 1024
    return not there.f_flag & os.ST_NOEXEC and min(there.f_bavail * there.f_frsize, free) > _ENOUGH


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Warnings and errors only."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))


@pytest.fixture(scope="session")
def pg_bin() -> Path | None:
    """The PostgreSQL under test; None is the wheel's."""
    named = os.environ.get("EKIDEN_TEST_PG_BIN")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def server(pg_bin: Path | None) -> Iterator[EmbeddedServer]:
    """One server for all tests. Its disk may be lazy, its commits may not: they are under test."""
    # Not under pytest's tmp_path, whose length would push the socket out of the data folder.
    home = Path(tempfile.mkdtemp(prefix="ekiden-test-"))
    try:
        with EmbeddedServer(home, bin_dir=pg_bin, settings={"fsync": "off"}) as server:
            yield server
    finally:
        shutil.rmtree(home)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: EmbeddedServer) -> str:
    """The name of a database with all migrations applied, made once."""
    from ekiden.store.migrate import migrate

    await _admin(server, f"CREATE DATABASE {_TEMPLATE}")
    await migrate(_dsn(server, _TEMPLATE))
    return _TEMPLATE


@pytest_asyncio.fixture
async def database(server: EmbeddedServer, template: str) -> AsyncIterator[str]:
    """The DSN of a database of the test's own, migrated and empty."""
    name = f"t_{next(_numbers)}"
    await _admin(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _dsn(server, name)
    finally:
        await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


def _dsn(server: EmbeddedServer, name: str) -> str:
    return server.dsn.replace("@/ekiden?", f"@/{name}?")


async def _admin(server: EmbeddedServer, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()

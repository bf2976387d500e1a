"""Servers that a test may break, and what the worker tells meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from ekiden.store.embedded import EmbeddedServer
from ekiden.store.migrate import migrate
from tests.recovery.load import heard as heard  # noqa: PLC0414 - a fixture, for all tests here
from tests.worker.relay import House, open_house


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def made(pg_bin: Path | None) -> AsyncIterator[Path]:
    """A home whose database is migrated, to be copied."""
    home = Path(tempfile.mkdtemp(prefix="ekiden-test-"))
    with EmbeddedServer(home, bin_dir=pg_bin, settings={"fsync": "off"}) as server:
        await migrate(server.dsn)
    yield home
    shutil.rmtree(home)


Start = Callable[..., EmbeddedServer]


@pytest.fixture
def start(made: Path, pg_bin: Path | None) -> Iterator[Start]:
    """Start a server of the test's own; ``home`` says where, keywords are its settings."""
    servers: list[EmbeddedServer] = []
    homes: list[Path] = []

    def start(home: Path | None = None, **settings: str) -> EmbeddedServer:
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="ekiden-test-"))
            homes.append(home)
        if not (home / "postgres").exists():
            subprocess.run(["cp", "-a", f"{made}/.", str(home)], check=True)
        server = EmbeddedServer(home, bin_dir=pg_bin, settings={"fsync": "off"} | settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
    for home in homes:
        shutil.rmtree(home)


@pytest_asyncio.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_house(database) as house:
        yield house

"""What the tests of the embedded PostgreSQL ask of a server and of a home."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from ekiden.store.embedded import EmbeddedServer

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root does")
needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")

Serve = Callable[..., EmbeddedServer]

# Starts the server of a home, says whether it owns it, and keeps it until its input ends.
OTHER_PROCESS = """
import sys
from pathlib import Path
from ekiden.store.embedded import EmbeddedServer
bin_dir = Path(sys.argv[2]) if sys.argv[2] else None
server = EmbeddedServer(Path(sys.argv[1]), bin_dir=bin_dir, settings={"fsync": "off"})
server.start()
print("owned" if server.owned else "joined", flush=True)
sys.stdin.read()
server.stop()
"""


def replace_initdb(programs: Path, script: str) -> None:
    initdb = programs / "initdb"
    real = initdb.readlink()
    initdb.unlink()
    initdb.write_text(f"#!/bin/sh\nreal={real}\n{script}\n")
    initdb.chmod(0o755)


def ask(server: EmbeddedServer, sql: str) -> object:
    async def answer() -> object:
        connection = await asyncpg.connect(server.dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(answer())


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def lock_is_free(home: Path) -> bool:
    with (home / "postgres.lock").open() as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "never became true"
        time.sleep(0.01)

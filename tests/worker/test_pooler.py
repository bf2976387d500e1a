"""Behind a transaction pooler: said, survived by looking, and healed by an address around it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog

from ekiden.store.doorbell import LOOK_AT_EVERYTHING, Doorbell
from tests.worker.network import between
from tests.worker.relay import QUICK, House, sums, working

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


@contextmanager
def pooled(dsn: str) -> Iterator[str]:
    """PgBouncer in transaction mode before the database, which must be reached by TCP."""
    parts = urlsplit(dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user, database = parts.netloc.rpartition("@")[0], parts.path.lstrip("/")
    folder = Path(tempfile.mkdtemp(prefix="ekiden-pooler-"))
    folder.chmod(0o755)
    (folder / "users").write_text(f'"{user}" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n{database} = host={parts.hostname} port={parts.port} user={user}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
        f"auth_type=any\nauth_file={folder}/users\npool_mode=transaction\n"
        "default_pool_size=10\nignore_startup_parameters="
        "extra_float_digits,tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,"
        "plan_cache_mode,lock_timeout,default_transaction_isolation,"
        "idle_in_transaction_session_timeout\n"
    )
    assert PGBOUNCER is not None
    command = [PGBOUNCER, "-q", str(folder / "ini")]
    if os.geteuid() == 0:
        command[1:1] = ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end, "pgbouncer does not listen"
                assert process.poll() is None, "pgbouncer ended"
                time.sleep(0.02)
        yield f"postgresql://{user}@127.0.0.1:{port}/{database}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
async def test_a_doorbell_behind_a_pooler_never_believes_that_it_listens(house: House) -> None:
    # PgBouncer runs as nobody, who may not enter the folder of the server's socket.
    async with between(house.dsn) as (_, address), AsyncExitStack() as stack:
        through = stack.enter_context(pooled(address))
        logs = stack.enter_context(structlog.testing.capture_logs())
        async with Doorbell(lambda: through) as bell, bell.subscribe("bell") as subscription:
            async with asyncio.timeout(10):
                while not logs:
                    await asyncio.sleep(0.01)
            await house.pool.execute("SELECT pg_notify('bell', 'a')")
            assert await subscription.wait(0.5) in ([], [LOOK_AT_EVERYTHING])
            assert not bell.listening
    assert [entry["event"] for entry in logs] == ["doorbell_deaf"]
    assert "EKIDEN_LISTEN_URL" in logs[0]["error"]


async def test_a_worker_that_cannot_listen_goes_on_by_looking(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_bell: Doorbell) -> bool:
        return False

    monkeypatch.setattr(Doorbell, "_hears", nothing)
    monkeypatch.setattr("ekiden.worker.heart.BEAT", 60.0)
    async with working(house.dsn, sums(), poll_interval=0.2) as worker:
        session = await house.begin("sums", QUICK)
        await house.until(session, "AWAITING_REVIEW")
        await house.sessions.approve(session, actor="a person")
        await house.until(session)
        assert not worker._doorbell.listening

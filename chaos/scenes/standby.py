"""The primary of a synchronous pair dies under load and the standby is promoted.

Both are made of the same PostgreSQL. Workers and clients know both addresses and want the one that
takes writes, as in front of any cluster. What was acknowledged was on both disks, so none of it may
be missing on the one that is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from chaos.clients import TROUBLE
from chaos.house import House, NotReached, Site, wait_until
from chaos.judge import complaints, judge
from chaos.nursery import Nursery
from chaos.observer import Observer
from ekiden.store import _cluster, _launch

PORT = 5433  # names the standby's socket
_WIDTH = 24  # sessions in flight
_PATIENCE = 60.0  # seconds


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return what was acknowledged and lost, and when steps were completed again."""
    await asyncio.to_thread(site.provider.control, delay=1.0, delay_s=0.05)
    database = (await site.database()).partition("@/")[2].partition("?")[0]
    standby = _Standby(site)
    with standby.running():
        await _replicates(site)
        hosts = f"{quote(site.socket_folder)},{quote(str(standby.folder))}"
        dsn = (
            f"postgresql://ekiden@/{database}?host={hosts}&port={site.postgres_port},{PORT}"
            "&target_session_attrs=read-write"
        )
        async with House(site, dsn=dsn) as house, Nursery(house) as nursery:
            async with Observer(dsn) as observer:
                workers = [await (await nursery.worker()).is_ready() for _ in range(2)]
                load = asyncio.create_task(_load(house))
                await wait_until(lambda: len(observer.completed) > (100 if short else 1000), 120)
                before = len(observer.completed)
                died = time.time()
                site.crash_postgres(signal.SIGKILL)
                await asyncio.to_thread(standby.promote)
                again = await _going_again(house, died, promoted=time.time())
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
                with contextlib.suppress(NotReached):
                    await house.drain(_PATIENCE)
                said = complaints(await judge(house, observer))
            alive = sum(worker.alive for worker in workers)
    return {
        "acknowledged": before,
        "acknowledged_after": len(observer.completed) - before,
        "lost": len(said) + len(workers) - alive,
        "complaints": said[:5],
        "going_again_s": again,
    }


class _Standby:
    """A copy of the site's PostgreSQL that follows it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.folder = site.folder / "standby"
        self._account = _cluster.account_for(site.folder / "pg", site.folder / "pg" / "postgres")
        self._programs = _cluster.find_binaries(None, self._account).folder

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Copy the primary, follow it, and stop at the end."""
        self.folder.mkdir(mode=0o700)
        if self._account:
            os.chown(self.folder, *self._account)
        self._run("pg_basebackup", "--host", self._site.socket_folder, "--port",
                  str(self._site.postgres_port), "--username", "ekiden", "--pgdata",
                  str(self.folder), "--wal-method=stream", "--checkpoint=fast",
                  "--write-recovery-conf")  # fmt: skip
        uid, gid = self._account or (-1, -1)
        command = [str(self._programs / "postgres"), "-D", str(self.folder)]
        for setting in (
            f"unix_socket_directories={self.folder}", f"port={PORT}", "listen_addresses=",
            "shared_buffers=32MB", "max_connections=200", "hot_standby=on",
        ):  # fmt: skip
            command += ["-c", setting]
        with (self._site.folder / "standby.log").open("ab") as log:
            server = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", _launch.__file__),
                    *(str(os.getpid()), str(uid), str(gid), *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_cluster.environment(),
                start_new_session=True,
            )
        try:
            yield
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()

    def promote(self) -> None:
        """Make it the primary; returns when it takes writes."""
        self._run("pg_ctl", "promote", "--pgdata", str(self.folder), "--wait")

    def _run(self, program: str, *words: str) -> None:
        done = _cluster.run(
            [self._programs / program, *words],
            self._account,
            stdout=subprocess.PIPE,
            log=subprocess.STDOUT,
        )
        if done.returncode != 0:
            raise AssertionError(f"{program}: {bytes(done.stdout).decode(errors='replace')}")


async def _replicates(site: Site) -> None:
    """Commit on both from here on; return when that is so."""
    await site.admin("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await site.admin("SELECT pg_reload_conf()")

    async def synchronous() -> bool:
        rows = await site.admin("SELECT sync_state FROM pg_stat_replication")
        return [row["sync_state"] for row in rows] == ["sync"]

    log = site.folder / "standby.log"
    await wait_until(synchronous, 60, lambda: Path(log).read_text()[-2000:])


async def _load(house: House) -> None:
    """Keep sessions in flight, through whatever happens."""
    made = 0
    while True:
        with contextlib.suppress(*TROUBLE):
            statuses = (await house.statuses()).values()
            for _ in range(_WIDTH - sum(status == "RUNNING" for status in statuses)):
                await house.create(f"standby-{made}")
                made += 1
        await asyncio.sleep(0.05)


async def _going_again(house: House, died: float, promoted: float) -> float | None:
    """Return after how many seconds a step was completed on the new primary; None if never.

    The backends of a postmaster that was killed may commit once more: that does not count.
    """

    async def completed() -> Any:
        with contextlib.suppress(*TROUBLE, asyncpg.PostgresError):
            return await house.pool.fetchval(
                "SELECT extract(epoch FROM min(completed_at))::float FROM ekiden.api_tasks"
                " WHERE completed_at > to_timestamp($1)",
                promoted,
            )
        return None

    with contextlib.suppress(NotReached):
        return round(float(await wait_until(completed, _PATIENCE)) - died, 2)
    return None

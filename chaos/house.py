"""Real processes to break: a PostgreSQL, a scripted provider, workers and an API.

with Site(seed=1) as site:                       # PostgreSQL and the provider
    async with House(site) as house:             # a database of its own, and its processes
        session = await house.create("key-1")
        worker = house.worker()                  # the real ``ekiden worker``
        await house.drain(timeout=60)            # approves gates until all sessions ended
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from chaos import flows
from chaos.processes import POLL, ROOT, NotReached, Process, Provider, wait_until
from ekiden.core.model import Options
from ekiden.errors import DatabaseError, EkidenError, NoGate
from ekiden.flows.registry import CompiledFlow
from ekiden.store.connection import open_pool
from ekiden.store.embedded import EmbeddedServer
from ekiden.store.migrate import migrate
from ekiden.store.sessions import Sessions
from ekiden.store.workers import Workers

__all__ = [
    "ENDED", "FLOW", "MODEL", "ROOT", "RUNS_ON", "House", "NotReached", "Process", "Provider",
    "Site", "free_port", "wait_until",
]  # fmt: skip

FLOW = "chaos.flows:chaos"
MODEL = "openai:chaos-1"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
RUNS_ON = Options(auto_phases=True, retry_delay=timedelta(milliseconds=20), max_retries=20)

_TEMPLATE = "chaos_template"


class Site:
    """A PostgreSQL and a provider. Open it in the main thread; several houses may share it.

    Args:
        seed: of the provider.
        folder: where everything is kept; None is a temporary one, removed at the end.
        settings: of PostgreSQL, on top of these: fsync on, small.
    """

    def __init__(
        self, *, seed: int = 1, folder: Path | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="ekiden-chaos-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.seed = seed
        self.server = EmbeddedServer(
            self.folder / "pg",
            settings={"shared_buffers": "32MB", "max_wal_size": "256MB", **(settings or {})},
        )
        self.provider = Provider(self.folder, seed)
        self._numbers = count(1)
        self._template: str | None = None
        self._lock = asyncio.Lock()

    def __enter__(self) -> Self:
        self.server.start()
        self.provider.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.provider.stop()
        self.server.stop()
        if self._temporary and kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- the database ---------------------------------------------------------------------------

    async def database(self) -> str:
        """Return the DSN of a new database, migrated, with the chaos flow registered."""
        async with self._lock:  # a template with a connection to it cannot be copied
            if self._template is None:
                await self.admin(f"CREATE DATABASE {_TEMPLATE}")
                dsn = self.dsn_of(_TEMPLATE)
                await migrate(dsn)
                async with open_pool(dsn, size=1) as pool:
                    await _register(Workers(pool, dsn), CompiledFlow(flows.chaos))
                self._template = _TEMPLATE
            name = f"house_{next(self._numbers)}"
            await self.admin(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        return self.dsn_of(name)

    async def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected."""
        name = dsn.partition("@/")[2].partition("?")[0]
        async with self._lock:
            await self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def admin(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement as superuser in the server's own database."""
        connection = await asyncpg.connect(self.server.dsn)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    def dsn_of(self, name: str) -> str:
        return self.server.dsn.replace("@/ekiden?", f"@/{name}?")

    @property
    def socket_folder(self) -> str:
        """Where PostgreSQL's socket is: ``Proxy(site.socket_folder, site.postgres_port)``."""
        # Not from postmaster.pid, which knows it by a name of the server's own.
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.server.dsn).query)["host"][0]

    @property
    def postgres_port(self) -> int:
        return int(self._postmaster_file()[3])

    @property
    def postmaster(self) -> int:
        """The process number of PostgreSQL's postmaster."""
        return int(self._postmaster_file()[0])

    def _postmaster_file(self) -> list[str]:
        return (self.folder / "pg" / "postgres" / "postmaster.pid").read_text().splitlines()

    def crash_postgres(self, number: int = signal.SIGKILL) -> None:
        """Signal the postmaster: SIGKILL, or SIGQUIT, which is ``pg_ctl -m immediate``."""
        os.kill(self.postmaster, number)

    def start_postgres(self) -> None:
        """Start PostgreSQL again if it is gone. Blocks; in the main thread only."""
        self.server.ensure()

    async def start_postgres_again(self, within: float = 60.0) -> None:
        """Start PostgreSQL until it answers: one that is still dying looks as if it ran."""
        async with asyncio.timeout(within):
            while True:
                try:
                    self.start_postgres()
                    await (await asyncpg.connect(self.server.dsn)).close()
                    return
                except (OSError, asyncpg.PostgresError, EkidenError):
                    await asyncio.sleep(0.2)


class House:
    """One database of a site, and the processes that work on it.

    Args:
        site: where it stands.
        dsn: a database that exists; None makes one, dropped at the end.
        flow: what workers load.
        environment: of every process, on top of what they need.
    """

    def __init__(
        self,
        site: Site,
        *,
        dsn: str = "",
        flow: str = FLOW,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.site = site
        self.dsn = dsn
        self._own = not dsn
        self._flow = flow
        self._environment = environment or {}
        self._numbers = count(1)
        self.processes: list[Process] = []  # every one that was ever started
        self.created: dict[str, str] = {}  # session id -> key
        self.approved: dict[tuple[str, int], int] = {}  # (session, phase) -> approvals that passed
        # (task, attempt) that a frozen worker held, and the end of its sleep: whatever completes
        # one of these before that is somebody else's late write.
        self.asleep: dict[tuple[int, int], datetime] = {}
        self.kills = 0

    async def __aenter__(self) -> Self:
        self.dsn = self.dsn or await self.site.database()
        name = self.dsn.partition("@/")[2].partition("?")[0]
        self.folder = self.site.folder / name
        self.folder.mkdir(exist_ok=True)
        self._stack = contextlib.AsyncExitStack()
        self.pool = await self._stack.enter_async_context(open_pool(self.dsn))
        self.sessions = Sessions(self.pool, self.dsn)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.close()
        await self._stack.aclose()
        if self._own and kind is None:
            await self.site.drop(self.dsn)

    # -- processes --------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Process]:
        """The workers that live."""
        return [p for p in self.processes if p.name.startswith("worker") and p.alive]

    def worker(self, *, failpoint: str = "", dsn: str = "", **environment: str) -> Process:
        """Start ``ekiden worker``. It is not ready yet: ``await house.worker().is_ready()``.

        Args:
            failpoint: EKIDEN_FAILPOINT.
            dsn: connect there instead, e.g. through a proxy.
            environment: on top of the house's, e.g. WORKER_BATCH_SIZE="1".
        """
        words = ["worker", "--flow", self._flow]
        return self.start("worker", words, failpoint=failpoint, dsn=dsn, **environment)

    def api(self, port: int, *, failpoint: str = "", dsn: str = "", **environment: str) -> Process:
        """Start ``ekiden serve`` on a port (see ``free_port``)."""
        words = ["serve", "--host", "127.0.0.1", "--port", str(port)]
        return self.start("api", words, failpoint=failpoint, dsn=dsn, **environment)

    def start(
        self, kind: str, words: list[str], *, failpoint: str = "", dsn: str = "", **more: str
    ) -> Process:
        """Start any ``ekiden`` command in this house."""
        name = f"{kind}-{next(self._numbers)}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",  # the tree this suite is in
            "DATABASE_URL": dsn or self.dsn,
            "OPENAI_BASE_URL": self.site.provider.url,
            "EKIDEN_MODEL": MODEL,
            "EKIDEN_HOME": str(self.folder / "home"),
            **({"EKIDEN_FAILPOINT": failpoint} if failpoint else {}),
            **self._environment,
            **more,
        }
        command = [str(Path(sys.executable).with_name("ekiden")), *words]
        process = Process(name, command, environment, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """kill -9, counted."""
        process.kill()
        self.kills += 1

    # -- sessions ---------------------------------------------------------------------------------

    async def create(self, key: str, options: Options = RUNS_ON) -> str:
        """Create a session and start it; its id. Safe to repeat: the key is the idempotency key."""
        session, _ = await self.sessions.create(
            flows.chaos.name, title=key, input={"key": key}, options=options, start=True,
            idempotency_key=key,
        )  # fmt: skip
        self.created[session] = key
        return session

    async def statuses(self) -> dict[str, str]:
        """Return the status of every session of the house."""
        rows = await self.pool.fetch("SELECT id::text, status FROM ekiden.sessions")
        return {row["id"]: row["status"] for row in rows}

    async def approve(self, session: str, phase: int, actor: str = "chaos") -> bool:
        """Approve a gate once; whether it was this call that passed it."""
        try:
            await self.sessions.approve(session, actor=actor)
        except NoGate:
            return False
        self.approved[session, phase] = self.approved.get((session, phase), 0) + 1
        return True

    async def open_gates(self) -> None:
        """Approve every gate that waits, and start every held task."""
        waiting = await self.pool.fetch(
            "SELECT id::text, phase FROM ekiden.sessions WHERE status = 'AWAITING_REVIEW'"
        )
        for row in waiting:
            await self.approve(row["id"], row["phase"])
        held = await self.pool.fetch(
            "SELECT DISTINCT s.id::text FROM ekiden.sessions s JOIN ekiden.api_tasks t"
            " ON t.session_id = s.id WHERE t.awaiting AND s.status = 'RUNNING'"
        )
        for row in held:
            await self.sessions.start(row["id"])

    async def drained(self) -> bool:
        """Whether every session has ended."""
        return all(status in ENDED for status in (await self.statuses()).values())

    async def drain(self, timeout: float = 60.0) -> None:
        """Open gates until every session has ended.

        Raises:
            NotReached: not all did; says where they stand.
        """
        give_up = time.monotonic() + timeout
        while True:
            try:
                await self.open_gates()
                if await self.drained():
                    return
            except (DatabaseError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if time.monotonic() > give_up:
                    raise
            if time.monotonic() > give_up:
                raise NotReached(await self.standing())
            await asyncio.sleep(POLL)

    async def standing(self) -> str:
        """Say where the sessions that have not ended stand, and end with the workers' logs."""
        rows = await self.pool.fetch(
            "SELECT s.id::text, s.status, t.phase, t.step, t.item, t.status AS task, t.attempt,"
            " t.error::text FROM ekiden.sessions s LEFT JOIN ekiden.api_tasks t"
            " ON t.session_id = s.id AND t.status <> 'COMPLETED'"
            " WHERE s.status <> ALL ($1::text[]) ORDER BY s.id, t.id LIMIT 20",
            list(ENDED),
        )
        logs = [f"{p.name} (code {p.code}): {p.last_words(800)}" for p in self.processes[-4:]]
        return "not drained:\n" + "\n".join([*(str(dict(row)) for row in rows), *logs])


def free_port() -> int:
    """Return a TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _register(workers: Workers, flow: CompiledFlow) -> int:
    return await workers.register_flow(
        name=flow.name,
        version=flow.version,
        title=flow.title,
        phases=flow.describe(),
        input_schema=flow.input_schema,
    )

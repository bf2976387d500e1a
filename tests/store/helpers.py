"""A relay on a database of its own: a flow, a worker, sessions; a completion in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from ekiden.core.model import ClaimedTask, Error, Options
from ekiden.store.connection import connect, open_pool
from ekiden.store.sessions import Sessions
from ekiden.store.tasks import Completion, Handoff, Tasks
from ekiden.store.workers import Workers

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
FLOW = "relay"
PHASES: list[dict[str, Any]] = [
    {"name": "trends", "title": "Trends", "titles": {}, "fansOut": True,
     "steps": ["THINK", "EXECUTE", "INTEGRATE"]},
    {"name": "plan", "title": "Plan", "titles": {}, "fansOut": False,
     "steps": ["THINK", "INTEGRATE"]},
]  # fmt: skip
ERROR = Error(kind="ModelUnavailable", message="no answer", retryable=True)

# The state of a session as people see it, without what every look at it may change.
CURSOR = "SELECT status, phase, step, generation, open_tasks FROM ekiden.sessions WHERE id = $1"


@dataclass(slots=True, kw_only=True)
class Relay:
    """What a test of the store has at hand."""

    dsn: str
    connection: asyncpg.Connection
    handoff: Handoff  # on that connection
    pool: asyncpg.Pool
    sessions: Sessions
    tasks: Tasks
    workers: Workers
    flow_id: int
    worker: int

    async def new_worker(self) -> int:
        return await self.workers.register(
            software="0", model="none", flow_ids=[self.flow_id], capacity=16, lease=LEASE
        )

    async def session(self, *, start: bool = True, **options: Any) -> str:
        session_id, _ = await self.sessions.create(
            FLOW, title="t", input={"theme": "x"}, options=Options(**options), start=start
        )
        return session_id

    async def claim(
        self, session_id: str | None = None, *, limit: int = 100, worker: int | None = None
    ) -> list[ClaimedTask]:
        claimed = await self.tasks.claim(
            self.worker if worker is None else worker, [self.flow_id], limit, session_id
        )
        return sorted(claimed, key=lambda task: task.id)

    async def started(self, **options: Any) -> ClaimedTask:
        """Make a session and claim its first task."""
        (task,) = await self.claim(await self.session(**options))
        return task

    async def complete(self, *batch: Completion) -> list[ClaimedTask]:
        """Commit completions, all of which must pass, and return what was handed on."""
        handed = await self.handoff.complete(self.worker, batch)
        assert handed.accepted == set(range(len(batch)))
        return [
            task for position in sorted(handed.following) for task in handed.following[position]
        ]

    async def executing(self, items: int, **options: Any) -> list[ClaimedTask]:
        """Make a session whose fan-out of this many items this worker holds."""
        think = await self.started(**options)
        return await self.complete(advance(think, items=items, room=items))

    async def at_gate(self, **options: Any) -> str:
        """Make a session that waits at the gate of phase 1."""
        (execute,) = await self.executing(1, **options)
        (integrate,) = await self.complete(advance(execute))
        await self.complete(gate(integrate))
        return execute.session_id

    async def row(self, query: str, *args: Any) -> tuple[Any, ...]:
        found = await self.connection.fetchrow(query, *args)
        assert found is not None
        return tuple(found.values())

    async def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in await self.connection.fetch(query, *args)]

    async def task(self, task_id: int, columns: str = "status") -> Any:
        """Return one column of a task, or several."""
        found = await self.row(f"SELECT {columns} FROM ekiden.api_tasks t WHERE id = $1", task_id)
        return found[0] if len(found) == 1 else found

    async def cursor(self, session_id: str) -> tuple[Any, ...]:
        """Return status, phase, step, generation and open tasks of a session."""
        return await self.row(CURSOR, session_id)


@asynccontextmanager
async def open_relay(dsn: str, *, now: datetime | None = None) -> AsyncIterator[Relay]:
    """Open the store on a database; with ``now``, its clock stands at that time."""
    settings = {} if now is None else {"ekiden.fake_now": now.isoformat()}
    # As the committer connects.
    hot = settings | {"plan_cache_mode": "force_generic_plan"}
    async with open_pool(dsn, size=8, settings=settings) as pool, second(dsn, hot) as connection:
        workers = Workers(pool, dsn)
        flow_id = await workers.register_flow(
            name=FLOW, version="1", title="Relay", phases=PHASES, input_schema={"type": "object"}
        )
        relay = Relay(
            dsn=dsn,
            connection=connection,
            handoff=Handoff(connection),
            pool=pool,
            sessions=Sessions(pool, dsn),
            tasks=Tasks(pool, dsn),
            workers=workers,
            flow_id=flow_id,
            worker=0,
        )
        relay.worker = await relay.new_worker()
        yield relay


@asynccontextmanager
async def second(
    dsn: str, settings: dict[str, str] | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """Open another connection."""
    connection = await connect(dsn, settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def until(true: Callable[[], Any]) -> None:
    """Wait until an async condition holds; the test's own timeout bounds it."""
    while not await true():
        await asyncio.sleep(0.005)


async def someone_waits(connection: asyncpg.Connection, how_many: int = 1) -> None:
    """Wait until this many connections wait for a lock that another one holds."""

    async def blocked() -> bool:
        waiting: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        return waiting >= how_many

    await until(blocked)


def advance(
    task: ClaimedTask,
    *,
    items: int | None = None,
    room: int = 1,
    hold: bool = False,
    result: str = '{"ok": true}',
    reads: str | None = None,
) -> Completion:
    """Complete a step that another one of its phase follows; with ``items``, a fan-out of them."""
    following = {"THINK": "EXECUTE" if task.phase == 1 else "INTEGRATE", "EXECUTE": "INTEGRATE"}
    return Completion(
        task=task,
        result=result,
        event="advance",
        next_phase=task.phase,
        next_step=following[task.step],
        new_phase=False,
        hold=hold,
        closes_phase=False,
        items=None if items is None else [f'"item {n}"' for n in range(items)],
        next_count=1 if items is None else items,
        room=room,
        reads=reads,
    )


def _closes_phase(task: ClaimedTask, event: str, result: str, **fields: Any) -> Completion:
    return Completion(
        task=task,
        result=result,
        event=event,
        next_phase=fields.pop("next_phase", task.phase),
        next_step=fields.pop("next_step", task.step),
        new_phase=fields.pop("new_phase", False),
        hold=fields.pop("hold", False),
        closes_phase=True,
        next_count=fields.pop("next_count", 0),
        **fields,
    )


def gate(task: ClaimedTask, *, result: str = '"output"') -> Completion:
    """Complete the last step of a phase that a person looks at."""
    return _closes_phase(task, "open_gate", result)


def next_phase(task: ClaimedTask, *, result: str = '"output"', **fields: Any) -> Completion:
    """Complete the last step of a phase that another one follows at once."""
    place = {"next_phase": task.phase + 1, "next_step": "THINK", "next_count": 1}
    return _closes_phase(task, "advance", result, **place, new_phase=True, **fields)


def finish(
    task: ClaimedTask, *, drafts: list[tuple[str, str, str]] | None = None, result: str = '"end"'
) -> Completion:
    """Complete the last step of the last phase."""
    return _closes_phase(task, "finish", result, drafts=drafts or [])

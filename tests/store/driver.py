"""The same operations as ``model.Model``, done to a real PostgreSQL, in the same words."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson

from ekiden.core.model import ClaimedTask, Options, StepKind
from ekiden.errors import Conflict
from ekiden.store.connection import connect
from ekiden.store.sessions import Sessions
from ekiden.store.tasks import Completion, Handoff, Tasks
from ekiden.store.workers import Workers
from tests.store.helpers import ERROR, NOON
from tests.store.model import LEASE, MAX_DEATHS, Session
from tests.store.shapes import SHAPES, Claimed, Done, Handed, Place, Shape, Token
from tests.store.walk import Call

_TABLES = (
    "events", "reviews", "revisions", "drafts", "attempts", "phase_runs", "api_tasks", "sessions",
    "workers",
)  # fmt: skip

_SEEN = """
SELECT json_build_object(
  'sessions', (SELECT json_agg(json_build_array(id, status, phase, step, generation, open_tasks,
                                                error IS NOT NULL)) FROM ekiden.sessions),
  'tasks', (SELECT json_agg(json_build_array(id, session_id, phase, generation, step, item, status,
                queued, awaiting, attempt, budget_from, worker_id, available_at,
                delivered IS NOT NULL, error IS NOT NULL)) FROM ekiden.api_tasks),
  'attempts', (SELECT json_agg(json_build_array(task_id, number, worker_id, outcome,
                                                error IS NOT NULL, retry_at) ORDER BY number)
               FROM ekiden.attempts),
  'revisions', (SELECT json_agg(json_build_array(id, session_id, phase, generation, number,
                                                 approved_at IS NOT NULL)) FROM ekiden.revisions),
  'reviews', (SELECT json_agg(json_build_array(v.session_id, v.phase, v.verb, r.number))
              FROM ekiden.reviews v JOIN ekiden.revisions r ON r.id = v.revision_id),
  'drafts', (SELECT json_agg(session_id) FROM ekiden.drafts),
  'phase_runs', (SELECT json_agg(json_build_array(session_id, phase, generation))
                 FROM ekiden.phase_runs),
  'events', (SELECT json_agg(json_build_array(session_id, type)) FROM ekiden.events),
  'workers', (SELECT json_agg(json_build_array(id, state, lease_until)) FROM ekiden.workers)
)::text
"""


class Driver:
    """Does what a ``Call`` says to the store and answers as the model does.

    Ids are learnt from what is seen; sessions, workers and places are called by name.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool
        self._handoffs: asyncio.Queue[Handoff] = asyncio.Queue()
        self._clocks: list[asyncpg.Connection] = []
        self._made: dict[str, Session] = {}  # as created; what has become of them is not known
        self._session_ids: dict[str, str] = {}
        self._worker_ids: dict[str, int] = {}
        self._flow_ids: dict[str, int] = {}
        self.task_ids: dict[Place, int] = {}
        self._revision_ids: dict[tuple[str, int, int, int], int] = {}
        self._now = 0

    async def open(self) -> None:
        """Connect; register the flows."""
        self._pool = await asyncpg.create_pool(
            self._dsn, min_size=0, max_size=4, setup=self._set_clock, reset=_nothing
        )
        for _ in range(2):  # as the committer connects
            connection = await connect(
                self._dsn, settings={"plan_cache_mode": "force_generic_plan"}
            )
            self._clocks.append(connection)
            self._handoffs.put_nowait(Handoff(connection))
        self._watching = await connect(self._dsn)
        self._holding = await connect(self._dsn)
        self._sessions = Sessions(self._pool, self._dsn)
        self._tasks = Tasks(self._pool, self._dsn)
        self._workers = Workers(self._pool, self._dsn)
        for shape in SHAPES.values():
            phases: list[dict[str, Any]] = [
                {"name": f"p{n}", "title": f"P{n}", "titles": {}, "steps": list(kinds),
                 "fansOut": n in shape.fans_out}
                for n, kinds in enumerate(shape.phases, 1)
            ]  # fmt: skip
            self._flow_ids[shape.name] = await self._workers.register_flow(
                name=shape.name, version="1", title=shape.name, phases=phases, input_schema={}
            )

    async def close(self) -> None:
        """Let the connections go."""
        for connection in (*self._clocks, self._watching, self._holding):
            await connection.close()
        await self._pool.close()

    async def begin(self) -> None:
        """Forget everything, for the next example."""
        await self._watching.execute(";".join(f"DELETE FROM ekiden.{name}" for name in _TABLES))
        for known in (self._session_ids, self._worker_ids, self.task_ids, self._revision_ids):
            known.clear()
        await self.set_time(0)

    async def set_time(self, now: int) -> None:
        """Let the database's clock stand at so many seconds past noon."""
        self._now = now
        for connection in self._clocks:
            await self._set_clock(connection)

    async def _set_clock(self, connection: Any) -> None:
        now = NOON + timedelta(seconds=self._now)
        await connection.execute(f"SET ekiden.fake_now = '{now.isoformat()}'")

    # -- one after the other, or two at once --------------------------------------------------

    async def do(self, call: Call) -> Any:
        """Do it; what the state refuses is an answer, too."""
        try:
            return await getattr(self, call.name)(*call.arguments)
        except Conflict as refused:
            return type(refused).__name__

    async def race(self, first: Call, second: Call, *, session: str) -> tuple[Any, Any]:
        """Do both at once: each has begun, and seen the state before, when the other ends."""
        async with self._holding.transaction():
            await self._holding.execute(
                "SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", self._session_ids[session]
            )
            one = asyncio.create_task(self.do(first))
            await self._until_blocked(one)
            two = asyncio.create_task(self.do(second))
            await self._until_blocked(one, two)
        return await one, await two

    async def _until_blocked(self, *running: asyncio.Task[Any]) -> None:
        """Wait until each of these has ended or waits for a lock."""
        while not all(task.done() for task in running):
            blocked: int = await self._watching.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND cardinality(pg_blocking_pids(pid)) > 0"
            )
            if blocked >= sum(not task.done() for task in running):
                return

    # -- workers ------------------------------------------------------------------------------

    async def hello(self, worker: str) -> None:
        self._worker_ids[worker] = await self._workers.register(
            software="0", model="none", flow_ids=list(self._flow_ids.values()), capacity=16,
            lease=timedelta(seconds=LEASE),
        )  # fmt: skip

    async def renew(self, worker: str) -> bool:
        beat = await self._workers.beat(
            self._worker_ids[worker], lease=timedelta(seconds=LEASE), busy=0, state="ALIVE"
        )
        return beat.alive

    async def dead(self) -> frozenset[str]:
        names = {id_: name for name, id_ in self._worker_ids.items()}
        return frozenset(names[id_] for id_ in await self._workers.dead())

    async def rescue(self, workers: Sequence[str]) -> int:
        ids = [self._worker_ids[name] for name in workers]
        return await self._workers.rescue(ids, max_deaths=MAX_DEATHS)

    # -- people -------------------------------------------------------------------------------

    async def create(
        self, name: str, shape: Shape, auto_steps: bool, auto_phases: bool, start: bool
    ) -> None:
        self._made[name] = Session(name, shape, auto_steps, auto_phases)
        self._session_ids[name], _ = await self._sessions.create(
            shape.name,
            title=name,
            input={},
            options=Options(auto_steps=auto_steps, auto_phases=auto_phases),
            start=start,
        )

    async def start(self, name: str) -> int:
        return await self._sessions.start(self._session_ids[name])

    async def approve(self, name: str, revision: int | None, key: str | None) -> None:
        seen = None
        if revision is not None:
            of_session = {r: id_ for r, id_ in self._revision_ids.items() if r[0] == name}
            newest = max(of_session, default=None)
            seen = of_session[newest] if newest and newest[3] == revision else 0
        await self._sessions.approve(
            self._session_ids[name], actor="me", revision=seen, idempotency_key=key
        )

    async def pause(self, name: str) -> None:
        await self._sessions.pause(self._session_ids[name], actor="me")

    async def resume(self, name: str) -> None:
        await self._sessions.resume(self._session_ids[name], actor="me")

    async def cancel(self, name: str) -> None:
        await self._sessions.cancel(self._session_ids[name], actor="me")

    async def deliver(self, token: Token) -> None:
        await self._sessions.deliver(
            self._session_ids[token.place.session],
            task_id=self.task_ids[token.place],
            attempt=token.attempt,
            result={"from": "outside"},
        )

    # -- what workers do ----------------------------------------------------------------------

    async def claim(
        self, worker: str, knows: Sequence[str], limit: int, only: str | None
    ) -> frozenset[Claimed]:
        claimed = await self._tasks.claim(
            self._worker_ids[worker],
            [self._flow_ids[name] for name in knows],
            limit,
            None if only is None else self._session_ids[only],
        )
        return frozenset(
            Claimed(self._place(t), t.attempt, t.budget_from, t.delivered is not None)
            for t in claimed
        )

    async def complete(self, worker: str, batch: Sequence[Done]) -> Handed:
        handoff = await self._handoffs.get()
        try:
            handed = await handoff.complete(
                self._worker_ids[worker], [self._completion(done) for done in batch]
            )
        finally:
            self._handoffs.put_nowait(handoff)
        following = {
            n: frozenset(self._place(task) for task in tasks)
            for n, tasks in handed.following.items()
        }
        return Handed(frozenset(handed.accepted), following, handed.left_queued)

    def _completion(self, done: Done) -> Completion:
        place = done.token.place
        session = self._made[place.session]
        transition, fan, count = session.follows(place, done.items)
        return Completion(
            task=self._task(done.token),
            result=f'"{place}"',
            event=transition.event,
            next_phase=transition.phase,
            next_step=transition.step,
            new_phase=transition.new_phase,
            hold=transition.hold,
            closes_phase=place.step == session.shape.kinds(place.phase)[-1],
            items=None if fan is None else [str(n) for n in range(fan)],
            next_count=count,
            room=done.room,
            drafts=[("draft", "{}", "[]")] if transition.event == "finish" else [],
        )

    async def retry(self, token: Token, delay: int) -> bool:
        return await self._tasks.retry(self._task(token), ERROR, timedelta(seconds=delay))

    async def fail(self, token: Token) -> bool:
        return await self._tasks.fail(self._task(token), ERROR)

    async def release(self, token: Token) -> bool:
        return await self._tasks.release(self._task(token))

    def _task(self, token: Token) -> ClaimedTask:
        place = token.place
        return ClaimedTask(
            id=self.task_ids[place], session_id=self._session_ids[place.session], flow_id=0,
            phase=place.phase, step=place.step, item=place.item, generation=place.generation,
            attempt=token.attempt, budget_from=0,
        )  # fmt: skip

    def _place(self, task: ClaimedTask) -> Place:
        (name,) = (n for n, id_ in self._session_ids.items() if id_ == task.session_id)
        return Place(name, task.phase, task.generation, StepKind(task.step), task.item)

    # -- what is seen -------------------------------------------------------------------------

    async def seen(self) -> dict[str, Any]:
        """Return all that is visible, in the words of ``Model.seen``."""
        text = await self._watching.fetchval(_SEEN)
        rows = {name: found or [] for name, found in orjson.loads(text).items()}
        session = {id_: name for name, id_ in self._session_ids.items()}
        worker = {id_: name for name, id_ in self._worker_ids.items()} | {None: None}
        for id_, s, phase, generation, step, item, *_ in rows["tasks"]:
            self.task_ids[Place(session[s], phase, generation, StepKind(step), item)] = id_
        place = {id_: place for place, id_ in self.task_ids.items()}
        for id_, s, *of in rows["revisions"]:
            phase, generation, number, _ = of
            self._revision_ids[session[s], phase, generation, number] = id_
        attempts: dict[Place, list[tuple[Any, ...]]] = {}
        for task, number, by, outcome, error, retry_at in rows["attempts"]:
            line = (number, worker[by], outcome, error, _seconds(retry_at))
            attempts.setdefault(place[task], []).append(line)
        return {
            "sessions": {session[id_]: tuple(of) for id_, *of in rows["sessions"]},
            "tasks": {
                place[id_]: (
                    status, queued, awaiting, attempt, budget_from, worker[by],
                    _seconds(at) if status == "QUEUED" else None, delivered, error,
                )
                for id_, *_, status, queued, awaiting, attempt, budget_from, by, at, delivered,
                error in rows["tasks"]
            },
            "attempts": attempts,
            "revisions": {
                (session[s], phase, generation, number): approved
                for _, s, phase, generation, number, approved in rows["revisions"]
            },
            "reviews": dict(Counter((session[s], *of) for s, *of in rows["reviews"])),
            "drafts": dict(Counter(session[s] for s in rows["drafts"])),
            "phase_runs": {(session[s], *of): True for s, *of in rows["phase_runs"]},
            "events": dict(Counter((session[s], kind) for s, kind in rows["events"])),
            "workers": {worker[id_]: (state, _seconds(t)) for id_, state, t in rows["workers"]},
        }  # fmt: skip


def _seconds(at: str | None) -> int | None:
    return None if at is None else round((datetime.fromisoformat(at) - NOON).total_seconds())


async def _nothing(_connection: Any) -> None:
    """Reset nothing: each connection of the pool is only ever used by the store's methods."""


@asynccontextmanager
async def open_driver(dsn: str) -> AsyncIterator[Driver]:
    """Open a driver on a database."""
    driver = Driver(dsn)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()

"""A database in which a real worker has brought sessions of many shapes to many states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg

from ekiden import CannotHeal
from ekiden.core.model import Budget, ClaimedTask, Error, Review, StepKind, Verb
from ekiden.core.retry import MAX_DEATHS
from ekiden.errors import ModelUnavailable
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest, RawAnswer
from ekiden.store.tasks import Tasks
from ekiden.store.workers import Workers
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, House, asks, one_step, open_house, sums, working

AUTO = replace(QUICK, auto_phases=True)
STEPWISE = replace(QUICK, auto_steps=False)
WORD = '{"word": "relay"}'
_ERROR = Error(kind="ModelUnavailable", message="no answer", retryable=True)


class Moody(ScriptedProvider):
    """Streams its first answer so slowly that some of it is saved, and fails once at "third"."""

    def __init__(self, saved: Callable[[], Awaitable[None]]) -> None:
        super().__init__(lambda _request: WORD)
        self._saved = saved
        self._moods = {"first", "third"}

    async def send(self, request: ModelRequest, **listeners: Any) -> RawAnswer:
        asked = request.messages[-1].content
        if asked in self._moods:
            self._moods.remove(asked)
            if asked == "third":
                raise ModelUnavailable("gone for a moment")
            on_text = listeners.pop("on_text")
            on_text(WORD[:5])
            await self._saved()
            on_text(WORD[5:])
        return await super().send(request)


async def _breaks(_ctx: object) -> str:
    raise CannotHeal("the well is dry")


def _heals() -> CompiledFlow:
    broken = [True]

    async def step(_ctx: object) -> str:
        if broken:
            broken.pop()
            raise CannotHeal("the well is dry")
        return "water"

    return one_step(step, "heals")


class Life:
    """Makes the sessions; ``sessions`` names them by what became of them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tasks = Tasks(house.pool, house.dsn)
        self._workers = Workers(house.pool, house.dsn)
        self.sessions: dict[str, str] = {}

    async def live(self) -> None:
        house, made = self._house, self.sessions
        provider = Moody(self._partial_saved)
        flows = [sums(), asks(), one_step(_breaks, "breaks"), _heals()]
        async with working(house.dsn, *flows, provider=provider):
            await self._at_work()
        for name in ("rescued", "delivered", "released", "poisoned", "cancelled", "again"):
            made[name] = await house.begin("sums", AUTO, n=2)
        await self._trouble()
        async with working(house.dsn, *flows, provider=provider):
            for name in ("rescued", "delivered", "released", "again"):
                await house.until(made[name])
        await self._left_open()

    async def _at_work(self) -> None:
        """What one worker does by itself, and people with it."""
        house, made = self._house, self.sessions
        for name, flow, options, values in (
            ("done", "sums", QUICK, {"n": 3}),
            ("gate", "sums", QUICK, {"n": 1}),
            ("cancelled_at_gate", "sums", QUICK, {"n": 2}),
            ("auto", "sums", AUTO, {"n": 2}),
            ("empty", "sums", AUTO, {"n": 0}),
            ("asked", "asks", QUICK, {}),
            ("failed", "breaks", QUICK, {}),
            ("resumed", "heals", QUICK, {}),
            ("held", "sums", STEPWISE, {"n": 3}),
            ("running", "sums", STEPWISE, {"n": 3}),
        ):
            made[name] = await house.begin(flow, options, **values)
        made["created"] = await house.begin("sums", start=False)
        for name in ("done", "gate", "cancelled_at_gate"):
            await house.until(made[name], "AWAITING_REVIEW")
        await house.sessions.approve(made["done"], actor="me")
        await house.sessions.cancel(made["cancelled_at_gate"], actor="me")
        for name in ("failed", "resumed"):
            await house.until(made[name], "FAILED")
        await house.sessions.resume(made["resumed"], actor="me")
        for name in ("done", "auto", "empty", "asked", "resumed"):
            await house.until(made[name])
        await self._decisions()
        for name in ("held", "running"):
            while (1, "EXECUTE", 2, "QUEUED", 0) not in await house.steps(made[name]):
                await asyncio.sleep(0.005)

    async def _decisions(self) -> None:
        """What people do at gates and between them, until the session is done all the same."""
        house, made, reviews = self._house, self.sessions, self._house.sessions.reviews

        async def decide(name: str, verb: Verb, **of: Any) -> None:
            await house.until(made[name], "AWAITING_REVIEW", "COMPLETED")
            await reviews.take(made[name], Review(verb=verb, actor="me", **of))

        made["sent_back"] = await house.begin("sums", QUICK, n=1)
        await decide("sent_back", Verb.REJECT, comment="more")
        await decide("sent_back", Verb.EDIT, output=41)
        await decide("sent_back", Verb.APPROVE)
        made["rerun"] = await house.begin("sums", AUTO, n=2)
        await house.until(made["rerun"])
        await decide("rerun", Verb.RERUN, phase=1, step=StepKind.INTEGRATE)
        await house.until(made["rerun"])
        await decide("rerun", Verb.EDIT, phase=1, output=40)
        await decide("rerun", Verb.APPROVE)
        made["fork"], _ = await reviews.fork(made["done"], phase=1, actor="me", start=True)
        limited = replace(QUICK, budgets={0: Budget(max_tokens=10**6)})
        made["limited"] = await house.begin("asks", limited)
        for name in ("sent_back", "rerun", "fork", "limited"):
            await house.until(made[name])

    async def _trouble(self) -> None:
        """What happens to tasks whose worker dies, stops, or is overtaken."""
        made, sessions = self.sessions, self._house.sessions
        dead = await self.worker()
        await self.claim(dead, "rescued")
        await self.rescue(dead)
        for _ in range(MAX_DEATHS):
            dead = await self.worker()
            await self.claim(dead, "poisoned")
            await self.rescue(dead)
        other = await self.worker()
        (task,) = await self.claim(other, "delivered")
        await sessions.deliver(
            made["delivered"], task_id=task.id, attempt=task.attempt, result=[0, 1]
        )
        (task,) = await self.claim(other, "released")
        await self._tasks.release(task)
        (task,) = await self.claim(other, "again")
        await self._tasks.retry(task, _ERROR, timedelta(0))
        await self.claim(other, "cancelled")
        await sessions.cancel(made["cancelled"], actor="me")

    async def _left_open(self) -> None:
        """Sessions in the middle of it."""
        house, made = self._house, self.sessions
        for name in ("paused", "paused_at_work"):
            made[name] = await house.begin("sums", n=2)
        worker = await self.worker()
        await self.claim(worker, "paused_at_work")
        for name in ("paused", "paused_at_work"):
            await house.sessions.pause(made[name], actor="me")
        await house.sessions.start(made["running"])
        assert len(await self.claim(worker, "running", 2)) == 2

    async def worker(self) -> int:
        """Register a worker that is nobody."""
        flows = [flow.id for flow in await self._house.sessions.flows()]
        return await self._workers.register(
            software="0", model="none", flow_ids=flows, capacity=16, lease=timedelta(hours=1)
        )

    async def claim(self, worker: int, name: str, limit: int = 1) -> list[ClaimedTask]:
        flows = [flow.id for flow in await self._house.sessions.flows()]
        claimed = await self._tasks.claim(worker, flows, limit, self.sessions[name])
        assert claimed
        return claimed

    async def rescue(self, worker: int) -> None:
        assert await self._workers.rescue([worker], max_deaths=MAX_DEATHS) == 1

    async def _partial_saved(self) -> None:
        async with asyncio.timeout(20):
            while not await self._house.pool.fetchval("SELECT count(*) FROM ekiden.partials"):
                await asyncio.sleep(0.01)


async def live(dsn: str) -> dict[str, str]:
    """Fill a database; return the sessions by what became of them."""
    async with open_house(dsn) as house:
        life = Life(house)
        await life.live()
    # A template must have no connections; those that were just closed may take a moment.
    connection = await asyncpg.connect(dsn.replace(_name(dsn), "/postgres?"))
    try:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
        while await connection.fetchval(count, _name(dsn).strip("/?")):
            await asyncio.sleep(0.01)
    finally:
        with suppress(asyncpg.PostgresError):
            await connection.close()
    return life.sessions


def _name(dsn: str) -> str:
    """The database of a test's DSN, with what stands around it."""
    return "/" + dsn.partition("@/")[2].partition("?")[0] + "?"

"""Small flows, and a worker that runs for the length of a `with`, for the tests of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from pydantic import BaseModel, Field

from ekiden import Context, Draft, Flow, Phase
from ekiden.core.model import Options
from ekiden.flows.registry import CompiledFlow
from ekiden.store.sessions import Sessions
from ekiden.worker.worker import Worker, WorkerOptions

QUICK = Options(retry_delay=timedelta(0))


class Count(BaseModel):
    n: int = Field(default=3, ge=0)


class Word(BaseModel):
    word: str = Field(max_length=40)


class Squares(Phase):
    """Square the numbers"""

    async def think(self, ctx: Context) -> list[int]:
        return list(range(ctx.input.n))

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, number: int) -> int:
        return number * number

    async def integrate(self, ctx: Context, plan: list[int], found: list[int]) -> int:
        return sum(found)


class Doubled(Phase):
    """Double the sum"""

    async def think(self, ctx: Context) -> int:
        return int(ctx.output(Squares))

    async def integrate(self, ctx: Context, plan: int) -> int:
        return plan * 2


class Asks(Phase):
    """Ask a model twice"""

    async def think(self, ctx: Context) -> Word:
        return await ctx.ask("first", Word)

    async def integrate(self, ctx: Context, plan: Word) -> list[str]:
        one = await ctx.ask("second", Word)
        two = await ctx.ask("third", Word)
        return [plan.word, one.word, two.word]


def sums() -> CompiledFlow:
    """Two phases: a fan-out, then its output doubled; one draft."""
    return CompiledFlow(
        Flow(
            "sums",
            input=Count,
            phases=[Squares, Doubled],
            drafts=lambda output: [Draft(title="The sum", body={"sum": output(Doubled)})],
        )
    )


def asks() -> CompiledFlow:
    """One phase that asks a model three times in all; one draft."""
    return CompiledFlow(
        Flow(
            "asks",
            input=Count,
            phases=[Asks],
            drafts=lambda output: [Draft(title="Words", body={"words": output(Asks)})],
        )
    )


def one_step(run: Callable[[Any], Any], name: str = "one") -> CompiledFlow:
    """A flow whose only THINK is ``run(ctx)``."""

    class Only(Phase):
        """The only phase"""

        async def think(self, ctx: Context) -> Any:
            return await run(ctx)

        async def integrate(self, ctx: Context, plan: Any) -> Any:
            return plan

    return CompiledFlow(Flow(name, input=Count, phases=[Only]))


class House:
    """A database with sessions, and a way to wait for them."""

    def __init__(self, dsn: str, pool: asyncpg.Pool) -> None:
        self.dsn = dsn
        self.pool = pool
        self.sessions = Sessions(pool, dsn)

    async def begin(
        self, flow: str, options: Options = QUICK, *, start: bool = True, **values: Any
    ) -> str:
        session, _ = await self.sessions.create(
            flow, title="test", input=values, options=options, start=start
        )
        return session

    async def until(self, session: str, *statuses: str) -> dict[str, Any]:
        """Wait for a status; fail with the whole progress when it does not come."""
        wanted = statuses or ("COMPLETED",)
        try:
            async with asyncio.timeout(20):
                while (progress := await self.sessions.progress(session))["status"] not in wanted:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"waited for {wanted}: {progress}") from None
        return progress

    async def steps(self, session: str) -> list[tuple[int, str, int, str, int]]:
        """(phase, step, item, status, attempt) of every task."""
        return [
            (t.phase, t.step, t.item, t.status, t.attempt)
            for t in await self.sessions.tasks(session)
        ]

    async def outcomes(self, session: str, task: int) -> list[str]:
        return [a.outcome for a in await self.sessions.attempts(session, task)]


@asynccontextmanager
async def open_house(dsn: str) -> AsyncIterator[House]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool:
        yield House(dsn, pool)


@asynccontextmanager
async def working(dsn: str, *flows: CompiledFlow, **arguments: Any) -> AsyncIterator[Worker]:
    """Run a worker; keyword arguments of WorkerOptions go there, the others to Worker."""
    fields = WorkerOptions.__dataclass_fields__
    options = WorkerOptions(**{k: arguments.pop(k) for k in list(arguments) if k in fields})
    worker = Worker(lambda: dsn, flows, options=options, **arguments)
    running = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if running.done():
        running.result()
    try:
        yield worker
    finally:
        worker.stop()
        await running

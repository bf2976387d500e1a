"""Ekiden: a session of five phases of three steps, everything on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import asyncpg
import structlog
from pydantic import BaseModel

from ekiden import Context, Flow, Phase
from ekiden.core.model import Options
from ekiden.flows.registry import CompiledFlow
from ekiden.store.migrate import migrate
from ekiden.store.sessions import Sessions
from ekiden.worker.worker import Worker, WorkerOptions
from peers import common

PACKAGES = ["ekiden", "asyncpg"]
KEEPS = "result, attempt, event and session row of each step; revisions of each phase"

PACED = True


class Input(BaseModel):
    id: str


class Noop(Phase):
    """Answers at once"""

    async def think(self, ctx: Context) -> dict[str, bool]:
        return await common.step(ctx.input.id)

    async def execute(self, ctx: Context, plan: dict[str, bool]) -> dict[str, bool]:
        return await common.step(ctx.input.id)

    async def integrate(
        self, ctx: Context, plan: dict[str, bool], found: dict[str, bool]
    ) -> dict[str, bool]:
        return await common.step(ctx.input.id)


def flow() -> CompiledFlow:
    phases = [type(f"Noop{n}", (Noop,), {}) for n in range(1, common.PHASES + 1)]
    return CompiledFlow(Flow("noop", input=Input, phases=phases))


async def set_up(dsn: str) -> None:
    await migrate(dsn)
    async with worker(dsn, 1):
        pass  # makes the flow known


@asynccontextmanager
async def client(dsn: str):
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=8)
    sessions = Sessions(pool, dsn)

    async def begin(ids):
        for some in (ids[n : n + 64] for n in range(0, len(ids), 64)):
            await asyncio.gather(
                *(
                    sessions.create(
                        "noop", title=id_, input={"id": id_}, options=Options(auto_phases=True),
                        start=True,
                    )
                    for id_ in some
                )
            )  # fmt: skip
        return perf_counter()

    yield begin
    await pool.close()


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    one = Worker(lambda: dsn, [flow()], options=WorkerOptions(capacity=at_once))
    running = asyncio.create_task(one.run())
    await one.ready.wait()
    yield
    one.stop()
    await running


if __name__ == "__main__":
    common.main(sys.modules[__name__])

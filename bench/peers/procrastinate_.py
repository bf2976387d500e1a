"""procrastinate: a job per step; each defers the next one."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import procrastinate

from peers import common

PACKAGES = ["procrastinate", "psycopg"]
KEEPS = (
    "the job and its events; no result, it travels in the next job, sent before this one is done"
)


def app_for(dsn: str) -> procrastinate.App:
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=2, max_size=10)
    )

    @app.task(name="step")
    async def step(session: str, number: int) -> None:
        common.mark(session)
        if number + 1 < common.STEPS:
            await step.defer_async(session=session, number=number + 1)

    return app


async def set_up(dsn: str) -> None:
    async with app_for(dsn).open_async() as app:
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def client(dsn: str):
    async with app_for(dsn).open_async() as app:

        async def begin(ids):
            first = ({"session": id_, "number": 0} for id_ in ids)
            await app.configure_task("step").batch_defer_async(*first)
            return perf_counter()

        yield begin


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    async with app_for(dsn).open_async() as app:
        running = asyncio.create_task(
            app.run_worker_async(concurrency=at_once, install_signal_handlers=False)
        )
        await asyncio.sleep(0.5)
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    common.main(sys.modules[__name__])

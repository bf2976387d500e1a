"""pgqueuer: a job per step; each enqueues the next one."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from peers import common

PACKAGES = ["pgqueuer", "asyncpg"]
KEEPS = "the job and its log; no result, it travels in the next job, sent before this one is done"


async def set_up(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


@asynccontextmanager
async def client(dsn: str):
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    queries = Queries(AsyncpgPoolDriver(pool))

    async def begin(ids):
        await queries.enqueue(
            ["step"] * len(ids), [f"{id_}/0".encode() for id_ in ids], [0] * len(ids)
        )
        return perf_counter()

    yield begin
    await pool.close()


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    pool = await asyncpg.create_pool(dsn, min_size=2, max_size=10)
    queue = PgQueuer(AsyncpgPoolDriver(pool))
    queries = Queries(AsyncpgPoolDriver(pool))

    @queue.entrypoint("step")
    async def step(job) -> None:
        id_, number = job.payload.decode().rsplit("/", 1)
        common.mark(id_)
        if int(number) + 1 < common.STEPS:
            await queries.enqueue("step", f"{id_}/{int(number) + 1}".encode())

    running = asyncio.create_task(queue.run(batch_size=min(at_once, 100)))
    await asyncio.sleep(0.5)
    yield
    queue.shutdown.set()
    await running
    await pool.close()


if __name__ == "__main__":
    common.main(sys.modules[__name__])

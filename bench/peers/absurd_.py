"""Absurd: a task of fifteen steps, each a checkpoint."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from peers import common

PACKAGES = ["absurd-sdk", "absurdctl", "psycopg"]
KEEPS = "a checkpoint with the result of each step"


async def set_up(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(BUNDLED_SCHEMA_SQL)
        await AsyncAbsurd(connection).create_queue("bench")


@asynccontextmanager
async def client(dsn: str):
    app = AsyncAbsurd(dsn, queue_name="bench")

    async def begin(ids):
        for id_ in ids:
            await app.spawn("session", {"id": id_}, queue="bench")
        return perf_counter()

    yield begin
    await app.close()


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    app = AsyncAbsurd(connection, queue_name="bench")

    @app.register_task(name="session")
    async def session(params, ctx):
        async def step():
            return common.mark(params["id"])

        for number in range(common.STEPS):
            await ctx.step(f"step-{number}", step)
        return common.RESULT

    running = asyncio.create_task(app.start_worker(concurrency=at_once))
    yield
    app.stop_worker()
    await running
    await connection.close()


if __name__ == "__main__":
    common.main(sys.modules[__name__])

"""DBOS: a workflow of fifteen steps, from a queue."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from time import perf_counter

from dbos import DBOS, DBOSClient

from peers import common

PACKAGES = ["dbos", "psycopg"]
KEEPS = "the output of each step"


async def set_up(dsn: str) -> None:
    DBOS(config={"name": "bench", "system_database_url": dsn, "run_admin_server": False})
    DBOS.launch()
    DBOS.destroy()


@asynccontextmanager
async def client(dsn: str):
    theirs = DBOSClient(system_database_url=dsn)

    async def begin(ids):
        for id_ in ids:
            await theirs.enqueue_async({"queue_name": "bench", "workflow_name": "session"}, id_)
        return perf_counter()

    yield begin
    theirs.destroy()


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    DBOS(config={"name": "bench", "system_database_url": dsn, "log_level": "ERROR",
                 "run_admin_server": False, "sys_db_pool_size": 20})  # fmt: skip

    @DBOS.step()
    async def step(id_: str) -> dict:
        return common.mark(id_)

    @DBOS.workflow(name="session")
    async def session(id_: str) -> dict:
        for _ in range(common.STEPS):
            await step(id_)
        return common.RESULT

    DBOS.launch()
    await DBOS.register_queue_async("bench", worker_concurrency=at_once)
    yield
    DBOS.destroy()


if __name__ == "__main__":
    common.main(sys.modules[__name__])

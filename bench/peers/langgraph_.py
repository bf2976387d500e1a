"""LangGraph with its PostgreSQL checkpointer: a graph of fifteen nodes, durability "sync"."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from peers import common

PACKAGES = ["langgraph", "langgraph-checkpoint-postgres", "psycopg"]
KEEPS = "a checkpoint of the state after each node; nothing claims or rescues a run"
QUEUES = False
asked: asyncio.Queue[str] = asyncio.Queue()  # it has none: who calls a graph runs it


class State(TypedDict):
    id: str
    done: dict


async def node(state: State) -> dict:
    return {"done": common.mark(state["id"])}


def pool_for(dsn: str) -> AsyncConnectionPool:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    return AsyncConnectionPool(dsn, min_size=2, max_size=10, kwargs=options, open=False)


async def set_up(dsn: str) -> None:
    async with pool_for(dsn) as pool:
        await AsyncPostgresSaver(pool).setup()


@asynccontextmanager
async def client(dsn: str):
    async def begin(ids):
        for id_ in ids:
            asked.put_nowait(id_)
        return perf_counter()

    yield begin


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    names = [f"step-{n}" for n in range(common.STEPS)]
    builder = StateGraph(State)
    for name in names:
        builder.add_node(name, node)
    for one, two in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(one, two)
    async with pool_for(dsn) as pool:
        graph = builder.compile(checkpointer=AsyncPostgresSaver(pool))

        async def sessions() -> None:
            while True:
                id_ = await asked.get()
                await graph.ainvoke(
                    {"id": id_},
                    {"configurable": {"thread_id": id_}, "recursion_limit": 50},
                    durability="sync",
                )

        running = [asyncio.create_task(sessions()) for _ in range(at_once)]
        yield
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    common.main(sys.modules[__name__])

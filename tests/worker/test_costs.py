"""What a step costs, counted and not timed: transactions, statements, WAL; nothing left open.

The bounds are a little above what was counted when they were set; a change that breaks one makes
every step dearer, and should say why it is worth it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg

from ekiden import Context, Flow, Phase
from ekiden.flows.registry import CompiledFlow
from tests.worker.relay import QUICK, Count, House, one_step, working

AUTO = replace(QUICK, auto_phases=True)
STEPS = 15


class Noop(Phase):
    """Answers at once"""

    async def think(self, ctx: Context) -> int:
        return 1

    async def execute(self, ctx: Context, plan: int) -> int:
        return 2

    async def integrate(self, ctx: Context, plan: int, found: int) -> int:
        return 3


def noop() -> CompiledFlow:
    return CompiledFlow(
        Flow("noop", input=Count, phases=[type(f"Noop{n}", (Noop,), {}) for n in range(1, 6)])
    )


async def counted(house: House) -> dict[str, int]:
    """Return what this database has done so far; WAL is of the whole cluster."""
    await asyncio.sleep(1.1)  # an idle connection reports a second later, a closed one at once
    row = await house.pool.fetchrow(
        "SELECT xact_commit + xact_rollback AS transactions, tup_inserted AS inserted, "
        "tup_updated AS updated, pg_current_wal_insert_lsn() - '0/0' AS wal "
        "FROM pg_stat_database WHERE datname = current_database()"
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}


async def cost(house: House, sessions: int, *, at_once: int) -> dict[str, float]:
    """Return what a step costs when a worker takes this many sessions from end to end."""
    async with working(house.dsn, noop()):
        pass  # the flow is known now
    ids = [await house.begin("noop", AUTO) for _ in range(sessions)]
    await house.pool.execute("CHECKPOINT")  # full pages are the checkpoint's, not the step's
    before = await counted(house)
    async with working(house.dsn, noop(), capacity=at_once):
        while await house.pool.fetchval(
            "SELECT count(*) FROM ekiden.sessions WHERE status <> 'COMPLETED'"
        ):
            await asyncio.sleep(0.2)
    after = await counted(house)
    return {name: (after[name] - before[name]) / (len(ids) * STEPS) for name in after}


async def test_a_lone_hop_is_one_commit(house: House) -> None:
    spent = await cost(house, 20, at_once=1)
    # The commit, and the worker's listener that it wakes: PostgreSQL counts its look as one, too.
    # A claim a session, the worker's start and this test's questions come on top.
    assert 2 <= spent["transactions"] <= 2.8


async def test_many_hops_share_a_commit(house: House) -> None:
    spent = await cost(house, 128, at_once=128)
    assert spent["transactions"] <= 0.3
    assert spent["inserted"] <= 4.0  # the next task, an attempt, an event; now and then a phase
    assert spent["updated"] <= 2.1  # the task and its session
    assert spent["wal"] <= 2_000


async def test_nothing_is_open_while_steps_run(house: House) -> None:
    """A transaction held through a step would keep the whole database from cleaning up."""
    inside, finish = asyncio.Event(), asyncio.Event()

    async def step(_ctx: Any) -> int:
        inside.set()
        await finish.wait()
        return 1

    async with working(house.dsn, one_step(step)):
        session = await house.begin("one", AUTO)
        await asyncio.wait_for(inside.wait(), 10)
        await asyncio.sleep(0.2)
        holding = await open_transactions(house.pool)
        finish.set()
        await house.until(session)
    assert holding == []


async def open_transactions(pool: asyncpg.Pool) -> list[str]:
    rows = await pool.fetch(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL OR state LIKE 'idle in%'"
    )
    return [row["query"] for row in rows]

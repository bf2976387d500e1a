"""The hand-off on two connections at the same moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from ekiden.store.tasks import Handoff
from tests.store.helpers import Relay, advance, second, someone_waits


@pytest_asyncio.fixture
async def other(relay: Relay) -> AsyncIterator[asyncpg.Connection]:
    async with second(relay.dsn, {"plan_cache_mode": "force_generic_plan"}) as connection:
        yield connection


async def integrates(relay: Relay) -> Counter[str]:
    """Count the INTEGRATE tasks of each session."""
    rows = await relay.rows(
        "SELECT session_id::text FROM ekiden.api_tasks WHERE step = 'INTEGRATE'"
    )
    return Counter(session for (session,) in rows)


async def test_of_two_siblings_that_commit_at_once_the_second_closes_the_step(
    relay: Relay, other: asyncpg.Connection
):
    first, last = await relay.executing(2)
    held = relay.connection.transaction()
    await held.start()
    assert await relay.complete(advance(first)) == []
    committing = asyncio.create_task(Handoff(other).complete(relay.worker, [advance(last)]))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    handed = await committing
    assert [t.step for t in handed.following[0]] == ["INTEGRATE"]
    assert await integrates(relay) == {first.session_id: 1}
    assert await relay.cursor(first.session_id) == ("RUNNING", 1, "INTEGRATE", 1, 1)


async def test_a_sibling_whose_commit_is_rolled_back_leaves_the_step_open(
    relay: Relay, other: asyncpg.Connection
):
    first, last = await relay.executing(2)
    held = relay.connection.transaction()
    await held.start()
    await relay.complete(advance(first))
    committing = asyncio.create_task(Handoff(other).complete(relay.worker, [advance(last)]))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.rollback()
    assert (await committing).following == {}
    assert await relay.cursor(first.session_id) == ("RUNNING", 1, "EXECUTE", 1, 1)
    assert [t.step for t in await relay.complete(advance(first))] == ["INTEGRATE"]


async def test_a_completion_sent_on_two_connections_is_applied_once(
    relay: Relay, other: asyncpg.Connection
):
    task = await relay.started()
    held = relay.connection.transaction()
    await held.start()
    await relay.complete(advance(task))
    committing = asyncio.create_task(Handoff(other).complete(relay.worker, [advance(task)]))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    assert (await committing).accepted == set()
    assert await relay.cursor(task.session_id) == ("RUNNING", 1, "EXECUTE", 1, 1)


async def test_a_completion_that_waited_for_a_cancel_is_refused(
    relay: Relay, other: asyncpg.Connection
):
    task = await relay.started()
    held = relay.connection.transaction()
    await held.start()
    await relay.connection.execute("SELECT FROM ekiden.sessions FOR UPDATE")
    await relay.connection.execute("UPDATE ekiden.api_tasks SET status = 'CANCELLED'")
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET status = 'CANCELLED', completed_at = now()"
    )
    committing = asyncio.create_task(Handoff(other).complete(relay.worker, [advance(task)]))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    assert (await committing).accepted == set()
    assert (await relay.cursor(task.session_id))[0] == "CANCELLED"


async def test_interleaved_siblings_on_two_connections_close_every_step_once_without_deadlock(
    relay: Relay, other: asyncpg.Connection
):
    connections = [Handoff(relay.connection), Handoff(other)]
    shuffle = random.Random(0).shuffle
    fans = [await relay.executing(16) for _ in range(24)]
    middle = sorted(fan[0].session_id for fan in fans)[12]
    async with second(relay.dsn) as holding, second(relay.dsn) as watching:
        for turn in range(0, 16, 2):
            lanes = [[fan[turn] for fan in fans], [fan[turn + 1] for fan in fans]]
            for lane in lanes:
                shuffle(lane)
            # Both are stopped in the middle of taking their locks, so that they surely overlap.
            async with holding.transaction():
                await holding.execute(
                    "SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", middle
                )
                commits = [
                    asyncio.create_task(
                        handoff.complete(relay.worker, [advance(task) for task in lane])
                    )
                    for handoff, lane in zip(connections, lanes, strict=True)
                ]
                await someone_waits(watching, 2)
            handed = await asyncio.gather(*commits)
            assert [len(h.accepted) for h in handed] == [24, 24]
            assert sum(len(h.following) for h in handed) == (24 if turn == 14 else 0)
    assert await integrates(relay) == {fan[0].session_id: 1 for fan in fans}

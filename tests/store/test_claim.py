"""Claiming: who gets which task, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from tests.store.helpers import ERROR, NOON, Relay, open_relay, second


async def due(relay: Relay, session: str, at: timedelta) -> None:
    await relay.connection.execute(
        "UPDATE ekiden.api_tasks SET available_at = $2 WHERE session_id = $1", session, NOON + at
    )


async def test_the_oldest_due_tasks_are_claimed_first(relay: Relay):
    sessions = [await relay.session() for _ in range(5)]
    for place, session in enumerate(sessions):
        await due(relay, session, timedelta(seconds=-place))  # the last made is the oldest
    for expected in ([4, 3], [2, 1], [0], []):
        claimed = await relay.claim(limit=2)
        assert {t.session_id for t in claimed} == {sessions[n] for n in expected}


async def test_of_tasks_due_at_once_the_lower_id_goes_first(relay: Relay):
    sessions = [await relay.session() for _ in range(3)]
    for session in sessions:
        await due(relay, session, timedelta(0))
    assert [t.session_id for t in await relay.claim(limit=2)] == sessions[:2]


async def test_a_claim_counts_the_attempt_and_names_the_worker(relay: Relay):
    task = await relay.started()
    assert (task.attempt, task.budget_from) == (1, 0)
    assert await relay.task(
        task.id, "status, queued, attempt, worker_id, started_at IS NOT NULL"
    ) == ("RUNNING", False, 1, relay.worker, True)
    await relay.tasks.release(task)
    (again,) = await relay.claim()
    assert (again.id, again.attempt) == (task.id, 2)


async def test_a_task_is_not_claimed_before_it_is_due(database: str):
    async with open_relay(database, now=NOON) as relay:
        task = await relay.started()
        assert await relay.tasks.retry(task, ERROR, timedelta(seconds=10))
        assert await relay.claim() == []
        assert await relay.tasks.next_due([relay.flow_id]) == 10
    async with open_relay(database, now=NOON + timedelta(seconds=9.999)) as relay:
        assert await relay.claim() == []
    async with open_relay(database, now=NOON + timedelta(seconds=10)) as relay:
        assert await relay.tasks.next_due([relay.flow_id]) == 0
        assert [t.id for t in await relay.claim()] == [task.id]
        assert await relay.tasks.next_due([relay.flow_id]) is None


async def test_only_tasks_of_known_flows_are_claimed(relay: Relay):
    task_session = await relay.session()
    assert await relay.tasks.claim(relay.worker, [relay.flow_id + 1], 10) == []
    assert await relay.tasks.claim(relay.worker, [], 10) == []
    assert await relay.tasks.next_due([relay.flow_id + 1]) is None
    claimed = await relay.tasks.claim(relay.worker, [relay.flow_id + 1, relay.flow_id], 10)
    assert [t.session_id for t in claimed] == [task_session]


async def test_with_a_session_named_only_its_tasks_are_claimed(relay: Relay):
    older, wanted = await relay.session(), await relay.session()
    assert [t.session_id for t in await relay.claim(wanted)] == [wanted]
    assert await relay.tasks.next_due([relay.flow_id], wanted) is None
    assert await relay.tasks.next_due([relay.flow_id], older) is not None


async def test_a_task_another_worker_is_claiming_is_passed_over_not_waited_for(relay: Relay):
    first, last = await relay.session(), await relay.session()
    async with second(relay.dsn) as other, other.transaction():
        await other.execute("SELECT FROM ekiden.api_tasks WHERE session_id = $1 FOR UPDATE", first)
        assert [t.session_id for t in await relay.claim(limit=1)] == [last]
    assert [t.session_id for t in await relay.claim(limit=1)] == [first]


async def test_no_two_claimers_share_a_task(relay: Relay):
    sessions = [await relay.session() for _ in range(100)]
    workers = [await relay.new_worker() for _ in range(8)]

    async def claim_all(worker: int) -> list[str]:
        mine: list[str] = []
        while claimed := await relay.claim(limit=3, worker=worker):
            mine += [t.session_id for t in claimed]
        return mine

    found = await asyncio.gather(*(claim_all(worker) for worker in workers))
    assert Counter(s for mine in found for s in mine) == Counter(sessions)


@pytest.mark.parametrize("state", ["LOST"])
async def test_a_worker_that_was_given_up_claims_nothing(relay: Relay, state: str):
    await relay.session()
    await relay.connection.execute(
        "UPDATE ekiden.workers SET state = $2 WHERE id = $1", relay.worker, state
    )
    assert await relay.claim() == []
    await relay.connection.execute(
        "UPDATE ekiden.workers SET state = 'DRAINING' WHERE id = $1", relay.worker
    )
    assert len(await relay.claim()) == 1

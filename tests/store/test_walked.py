"""What the random walk of test_stateful found, each as the shortest way there."""

from __future__ import annotations

import asyncio

from ekiden.core.retry import MAX_DEATHS
from tests.store.helpers import Relay, second, someone_waits


async def test_a_delivery_that_waits_through_a_pause_is_kept(relay: Relay):
    task = await relay.started()
    await relay.sessions.deliver(
        task.session_id, task_id=task.id, attempt=task.attempt, result={"from": "outside"}
    )
    await relay.sessions.pause(task.session_id, actor="me")
    await relay.sessions.resume(task.session_id, actor="me")
    (again,) = await relay.claim()
    assert again.delivered == '{"from":"outside"}'


async def test_a_task_rescued_while_a_person_pauses_is_held(relay: Relay):
    dead = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=dead)
    async with second(relay.dsn) as holding, second(relay.dsn) as watching:
        async with holding.transaction():
            await holding.execute(
                "SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", task.session_id
            )
            pausing = asyncio.create_task(relay.sessions.pause(task.session_id, actor="me"))
            await someone_waits(watching)
            # It has seen the session RUNNING, and gets its lock only after the pause.
            rescuing = asyncio.create_task(relay.workers.rescue([dead], max_deaths=MAX_DEATHS))
            await someone_waits(watching, 2)
        await pausing
        assert await rescuing == 1
    assert await relay.claim() == []
    await relay.sessions.resume(task.session_id, actor="me")
    assert [t.id for t in await relay.claim()] == [task.id]


async def test_giving_a_task_back_hides_none_of_the_deaths_it_caused(relay: Relay):
    session = await relay.session()
    for _ in range(MAX_DEATHS):
        assert await relay.task(await first_task(relay, session)) == "QUEUED"
        dead = await relay.new_worker()
        (task,) = await relay.claim(session, worker=dead)
        await relay.tasks.release(task)
        await relay.claim(session, worker=dead)
        await relay.workers.rescue([dead], max_deaths=MAX_DEATHS)
    assert await relay.task(task.id) == "FAILED"


async def first_task(relay: Relay, session: str) -> int:
    return int((await relay.sessions.tasks(session))[0].id)

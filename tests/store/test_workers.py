"""Workers' signs of life, and the rescue of what dead ones held."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ekiden.core.retry import MAX_DEATHS
from ekiden.store.connection import connect
from ekiden.store.workers import LONGEST_AFTER_FAILURE, take_life_sign
from tests.store.helpers import ERROR, LEASE, NOON, Relay, advance, open_relay, second, until


async def rescue(relay: Relay, worker: int) -> int:
    return await relay.workers.rescue([worker], max_deaths=MAX_DEATHS)


async def state(relay: Relay, worker: int) -> str:
    (found,) = await relay.row("SELECT state FROM ekiden.workers WHERE id = $1", worker)
    return found


async def test_a_worker_is_dead_when_its_lease_is_over_and_not_before(database: str):
    async with open_relay(database, now=NOON) as relay:
        worker = relay.worker
    async with open_relay(database, now=NOON + LEASE - timedelta(milliseconds=1)) as relay:
        assert worker not in await relay.workers.dead()
    async with open_relay(database, now=NOON + LEASE) as relay:
        assert await relay.workers.dead() == {worker: True}


async def test_a_renewed_lease_holds_from_then_on(database: str):
    async with open_relay(database, now=NOON) as relay:
        worker = relay.worker
    async with open_relay(database, now=NOON + LEASE / 2) as relay:
        assert (await relay.workers.beat(worker, lease=LEASE, busy=3, state="DRAINING")).alive
    async with open_relay(database, now=NOON + LEASE) as relay:
        assert worker not in await relay.workers.dead()
        seen = {w.id: (w.state, w.busy) for w in await relay.sessions.workers()}
        assert seen[worker] == ("DRAINING", 3)
    async with open_relay(database, now=NOON + LEASE * 1.5) as relay:
        assert (await relay.workers.dead())[worker] is True


async def test_a_worker_that_was_given_up_cannot_renew(relay: Relay):
    await rescue(relay, relay.worker)
    assert await state(relay, relay.worker) == "LOST"
    assert not (await relay.workers.beat(relay.worker, lease=LEASE, busy=0, state="ALIVE")).alive
    assert await relay.workers.dead() == {}


async def test_a_worker_that_said_goodbye_is_not_dead(database: str):
    async with open_relay(database, now=NOON) as relay:
        worker = relay.worker
        await relay.workers.stop(worker)
    async with open_relay(database, now=NOON + LEASE) as relay:
        assert await relay.workers.dead() == {}
        assert not (await relay.workers.beat(worker, lease=LEASE, busy=0, state="ALIVE")).alive


async def test_a_worker_whose_life_sign_is_gone_is_suspected_at_once(relay: Relay):
    life = await connect(relay.dsn)
    try:
        assert await take_life_sign(life, relay.worker)
        assert await relay.workers.dead() == {}
    finally:
        await life.close()

    async def suspected() -> bool:
        return await relay.workers.dead() == {relay.worker: False}

    await until(suspected)
    async with second(relay.dsn) as again:
        assert await take_life_sign(again, relay.worker)
        assert await relay.workers.dead() == {}


async def test_a_life_sign_that_another_connection_holds_is_not_taken(relay: Relay):
    async with second(relay.dsn) as one, second(relay.dsn) as other:
        assert await take_life_sign(one, relay.worker)
        assert not await take_life_sign(other, relay.worker)


async def test_a_worker_that_never_gave_a_life_sign_is_judged_by_its_lease_alone(relay: Relay):
    assert await relay.workers.dead() == {}


async def test_a_rescued_task_is_due_at_once_for_a_new_attempt(relay: Relay):
    dead = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=dead)
    assert await rescue(relay, dead) == 1
    assert [a.outcome for a in await relay.sessions.attempts(task.session_id, task.id)] == ["LOST"]
    (again,) = await relay.claim()
    assert (again.id, again.attempt, again.budget_from) == (task.id, 2, 0)


async def test_a_zombies_late_result_is_refused(relay: Relay):
    dead = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=dead)
    await rescue(relay, dead)
    assert (await relay.handoff.complete(dead, [advance(task)])).accepted == set()
    (again,) = await relay.claim()
    assert (await relay.handoff.complete(dead, [advance(task)])).accepted == set()
    await relay.complete(advance(again))


async def test_a_rescue_takes_only_what_the_dead_worker_held(relay: Relay):
    dead = await relay.new_worker()
    mine, theirs = await relay.executing(2)
    await relay.tasks.release(theirs)
    (theirs,) = await relay.claim(worker=dead)
    assert await rescue(relay, dead) == 1
    assert await relay.task(mine.id) == "RUNNING"
    assert await relay.task(theirs.id) == "QUEUED"
    assert await rescue(relay, dead) == 0


async def test_a_rescued_task_of_a_paused_session_is_held(relay: Relay):
    dead = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=dead)
    await relay.sessions.pause(task.session_id, actor="me")
    await rescue(relay, dead)
    assert await relay.claim() == []
    await relay.sessions.resume(task.session_id, actor="me")
    assert [t.id for t in await relay.claim()] == [task.id]


async def test_a_task_that_took_three_workers_with_it_is_parked_with_its_session(relay: Relay):
    session = await relay.session()
    for death in range(1, MAX_DEATHS + 1):
        dead = await relay.new_worker()
        (task,) = await relay.claim(session, worker=dead)
        assert task.attempt == death
        await rescue(relay, dead)
    assert await relay.task(task.id) == "FAILED"
    assert await relay.claim() == []
    seen = await relay.sessions.get(session)
    assert seen.status == "FAILED"
    assert seen.error is not None
    assert (seen.error["kind"], seen.error["attempt"]) == ("Poison", 3)
    assert [a.outcome for a in await relay.sessions.attempts(session, task.id)] == ["LOST"] * 3
    # A person may try again, with three more lives.
    await relay.sessions.resume(session, actor="me")
    dead = await relay.new_worker()
    await relay.claim(session, worker=dead)
    await rescue(relay, dead)
    assert await relay.task(task.id) == "QUEUED"


async def test_deaths_are_counted_apart_from_errors(relay: Relay):
    session = await relay.session()
    for _ in range(MAX_DEATHS):
        (task,) = await relay.claim(session)
        await relay.tasks.retry(task, ERROR, timedelta(0))
    dead = await relay.new_worker()
    (task,) = await relay.claim(session, worker=dead)
    await rescue(relay, dead)
    assert await relay.task(task.id) == "QUEUED"


@pytest.mark.parametrize("how", ["LOST", "STOPPED"])
async def test_a_task_left_on_a_worker_that_is_gone_makes_it_dead_again(relay: Relay, how: str):
    # A commit of its that was on the way when it was given up can still hand on to it.
    gone = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=gone)
    await relay.connection.execute("UPDATE ekiden.workers SET state = $2 WHERE id = $1", gone, how)
    assert await relay.workers.dead() == {gone: True}
    assert await rescue(relay, gone) == 1
    assert await relay.workers.dead() == {}
    assert await relay.task(task.id) == "QUEUED"


async def test_what_still_ran_when_its_session_failed_is_rescued(relay: Relay):
    one, two = await relay.executing(2)
    await relay.tasks.fail(one, ERROR)
    assert await rescue(relay, relay.worker) == 1
    assert await relay.task(two.id) == "QUEUED"


async def test_a_session_that_failed_long_ago_is_looked_into_once_it_runs_again(relay: Relay):
    one, two = await relay.executing(2)
    await relay.tasks.fail(one, ERROR)
    await relay.workers.stop(relay.worker)
    assert await relay.workers.dead() == {relay.worker: True}
    ago = LONGEST_AFTER_FAILURE + timedelta(seconds=1)
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET updated_at = now() - $1::interval", ago
    )
    assert await relay.workers.dead() == {}
    assert await rescue(relay, relay.worker) == 0
    await relay.sessions.resume(one.session_id, actor="me")
    assert await relay.workers.dead() == {relay.worker: True}
    assert await rescue(relay, relay.worker) == 1
    assert await relay.task(two.id) == "QUEUED"


async def test_a_worker_that_died_long_ago_is_rescued_from_what_failed_then(relay: Relay):
    one, two = await relay.executing(2)
    await relay.tasks.fail(one, ERROR)
    ago = LONGEST_AFTER_FAILURE + timedelta(days=9)
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET updated_at = now() - $1::interval", ago
    )
    await relay.connection.execute("UPDATE ekiden.workers SET seen_at = now() - $1::interval", ago)
    assert await rescue(relay, relay.worker) == 1
    assert await relay.task(two.id) == "QUEUED"

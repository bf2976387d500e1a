"""Each item of a fan-out has its event; that its session was stopped is told once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ekiden.core.model import Budget, ClaimedTask, Review, Verb
from ekiden.core.retry import MAX_DEATHS
from ekiden.store.errands import EVENTS, Errands
from tests.store.helpers import ERROR, Relay

Stop = Callable[[ClaimedTask], Awaitable[bool]]


async def told(relay: Relay) -> list[str]:
    rows = await relay.rows("SELECT event FROM ekiden.errands ORDER BY id")
    return [event for (event,) in rows]


async def firsts(relay: Relay, event: str) -> list[str]:
    rows = await relay.rows(
        "SELECT data ->> 'first' FROM ekiden.events WHERE type = $1 ORDER BY id", event
    )
    return [first for (first,) in rows]


@pytest.fixture(autouse=True)
async def _somebody_is_told(relay: Relay) -> None:
    await Errands(relay.pool, relay.dsn).add_webhook("http://127.0.0.1:1/", "whsec_eA==", EVENTS)


def over_budget(relay: Relay) -> Stop:
    return lambda task: relay.tasks.stop_for_budget(task, {"kind": "budget", "message": "spent"})


async def test_a_budget_that_three_items_meet_is_told_once_and_again_after_it_was_raised(
    relay: Relay,
):
    stop, items = over_budget(relay), await relay.executing(3)
    session = items[0].session_id
    for task in items:
        assert await stop(task)
    assert await firsts(relay, "budget_reached") == ["true", "false", "false"]
    assert await told(relay) == ["session.budget"]
    raised = Review(verb=Verb.BUDGET, actor="ann", budget=Budget(max_tokens=1000))
    await relay.sessions.reviews.take(session, raised)
    for task in await relay.claim(session):
        assert await stop(task)
    assert await told(relay) == ["session.budget"] * 2


async def test_a_failure_of_three_items_is_told_once_and_again_after_a_resume(relay: Relay):
    items = await relay.executing(3)
    for task in items:
        assert await relay.tasks.fail(task, ERROR)
    assert await firsts(relay, "task_failed") == ["true", "false", "false"]
    assert await told(relay) == ["session.failed"]
    await relay.sessions.resume(items[0].session_id, actor="ann")
    for task in await relay.claim():
        assert await relay.tasks.fail(task, ERROR)
    assert await told(relay) == ["session.failed"] * 2


async def test_each_kind_of_stop_is_told(relay: Relay):
    stop, (one, two, three) = over_budget(relay), await relay.executing(3)
    await relay.sessions.pause(one.session_id, actor="ann")
    await stop(one)
    await relay.tasks.fail(two, ERROR)
    await stop(three)  # the session is not stopped by it: it has failed
    assert await told(relay) == ["session.budget", "session.failed"]


async def test_items_that_take_their_workers_with_them_are_told_once(relay: Relay):
    session = (await relay.executing(3))[0].session_id
    worker = relay.worker
    for _ in range(MAX_DEATHS):
        await relay.workers.rescue([worker], max_deaths=MAX_DEATHS)
        worker = await relay.new_worker()
        await relay.claim(session, worker=worker)
    assert sorted(await firsts(relay, "task_failed")) == ["false", "false", "true"]
    assert await told(relay) == ["session.failed"]

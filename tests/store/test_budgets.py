"""What may be spent is set as a whole, or limit by limit beside what there is."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from ekiden.core.model import Budget, Review, Verb
from ekiden.errors import Conflict, NotFound
from ekiden.store.inside import Inside
from tests.store.helpers import Relay

MONEY, TOKENS = Budget(max_cost_usd=Decimal("0.5")), Budget(max_tokens=70)


async def put(relay: Relay, session: str, budget: Budget, *, keep: bool, phase: int = 0) -> None:
    review = Review(verb=Verb.BUDGET, actor="ann", phase=phase, budget=budget, keep=keep)
    await relay.sessions.reviews.take(session, review)


async def limits(relay: Relay, session: str) -> list[tuple[int, Decimal | None, int | None]]:
    found = await relay.sessions.budgets.of(session)
    return [(b.phase, b.max_cost_usd, b.max_tokens) for b in found]


async def told(relay: Relay) -> list[tuple[str | None, str | None]]:
    """Return dollars and tokens of every event that says what the budget is now."""
    return await relay.rows(
        "SELECT data ->> 'maxCostUsd', data ->> 'maxTokens' FROM ekiden.events"
        " WHERE type = 'budget_set' ORDER BY id"
    )


async def test_a_limit_that_is_not_given_is_kept_or_gone_as_asked(relay: Relay):
    session = await relay.session()
    await put(relay, session, MONEY, keep=True)
    await put(relay, session, TOKENS, keep=True)
    await put(relay, session, TOKENS, keep=True, phase=1)
    assert await limits(relay, session) == [(0, Decimal("0.5"), 70), (1, None, 70)]
    await put(relay, session, TOKENS, keep=False)
    assert await limits(relay, session) == [(0, None, 70), (1, None, 70)]
    await put(relay, session, Budget(), keep=False)
    assert await limits(relay, session) == [(1, None, 70)]
    assert await told(relay) == [
        ("0.5", None), ("0.5", "70"), (None, "70"), (None, "70"), (None, None),
    ]  # fmt: skip


async def test_limits_that_two_people_set_at_once_both_hold(relay: Relay):
    session = await relay.session()
    given = [MONEY, TOKENS] * 8
    await asyncio.gather(*(put(relay, session, budget, keep=True) for budget in given))
    assert await limits(relay, session) == [(0, Decimal("0.5"), 70)]


async def test_that_it_was_set_is_what_a_stop_ends_with_in_the_timing(relay: Relay):
    task = await relay.started()
    await relay.tasks.stop_for_budget(task, {"kind": "budget", "message": "spent"})
    await put(relay, task.session_id, MONEY, keep=True)
    await relay.sessions.pause(task.session_id, actor="ann")
    await relay.sessions.reviews.take(task.session_id, Review(verb=Verb.RERUN, actor="ann"))
    inside = Inside(relay.pool, relay.dsn)
    lived = await inside.lived(await relay.sessions.get(task.session_id))
    assert [m.type for m in lived.moments] == [
        "budget_reached", "budget_set", "session_paused", "phase_rerun",
    ]  # fmt: skip


@pytest.mark.parametrize("then", [TOKENS, Budget()])
async def test_limits_that_a_person_has_changed_stop_nobody_who_still_had_the_old_ones(
    relay: Relay, then: Budget
):
    late, first = await relay.executing(2)
    session = first.session_id
    await put(relay, session, MONEY, keep=False)
    stop = {"kind": "budget", "ofPhase": 0, "message": "spent", "maxCostUsd": 0.5,
            "maxTokens": None}  # fmt: skip
    assert await relay.tasks.stop_for_budget(first, stop)
    assert (await relay.sessions.get(session)).status == "PAUSED"
    await put(relay, session, then, keep=False)
    assert await relay.tasks.stop_for_budget(late, stop)
    assert (await relay.sessions.get(session)).status == "RUNNING"
    assert {task.id for task in await relay.claim(session)} == {late.id, first.id}


async def test_budgets_are_of_a_session_that_there_is_and_goes_on(relay: Relay):
    session = await relay.session()
    await relay.sessions.cancel(session, actor="ann")
    with pytest.raises(Conflict):
        await put(relay, session, MONEY, keep=True)
    assert await limits(relay, session) == []
    with pytest.raises(NotFound):
        await limits(relay, "nothing")

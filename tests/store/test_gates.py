"""The gate: passed once, only by who saw what stands, and by no two with one key."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ekiden.core.model import Review, Reviewed, Verb
from ekiden.core.refusals import place_in
from ekiden.errors import Conflict, NoGate, StaleRevision
from tests.store.helpers import Relay, advance, gate, next_phase, second, someone_waits

REVIEWS = "SELECT phase, verb, revision_id, actor, comment FROM ekiden.reviews"


async def standing(relay: Relay, session: str) -> int:
    return (await relay.sessions.revisions(session))[-1].id


async def edit(relay: Relay, session: str, output: str) -> None:
    """Add a revision, as an edit does."""
    await relay.connection.execute(
        "INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, output)"
        " SELECT $1, 1, 1, max(number) + 1, 'me', $2::json FROM ekiden.revisions"
        " WHERE session_id = $1",
        session,
        output,
    )


async def test_approval_begins_the_next_phase_and_is_recorded(relay: Relay):
    session = await relay.at_gate()
    revision = await standing(relay, session)
    await relay.sessions.approve(session, actor="me", comment="fine")
    assert await relay.cursor(session) == ("RUNNING", 2, "THINK", 1, 1)
    (approved,) = await relay.sessions.revisions(session)
    assert approved.approved_at is not None
    assert await relay.rows(REVIEWS) == [(1, "approve", revision, "me", "fine")]
    (task,) = await relay.claim(session)
    assert (task.phase, task.step, task.generation) == (2, "THINK", 1)
    assert (await relay.tasks.load_sessions([session]))[session].outputs == {1: '"output"'}


async def test_with_steps_by_hand_the_next_phase_waits_to_be_started(relay: Relay):
    session = await relay.at_gate(auto_steps=False)
    await relay.sessions.approve(session, actor="me")
    assert await relay.claim(session) == []
    assert await relay.sessions.start(session) == 1


async def test_a_start_that_comes_late_does_not_start_the_step_after(relay: Relay):
    session = await relay.session(start=False, auto_steps=False)
    seen = place_in(await relay.sessions.progress(session))
    assert await relay.sessions.start(session, seen=seen) == 1
    assert await relay.sessions.start(session, seen=seen) == 0, "a double click is no mistake"
    (think,) = await relay.claim(session)
    await relay.complete(advance(think, hold=True))
    with pytest.raises(Conflict, match="has moved on since you looked") as refused:
        await relay.sessions.start(session, seen=seen)
    assert refused.value.kind == "moved-on"
    assert await relay.claim(session) == []
    now = place_in(await relay.sessions.progress(session))
    assert await relay.sessions.start(session, seen=now) == 1


async def test_of_sixty_four_at_once_exactly_one_passes_the_gate(relay: Relay):
    session = await relay.at_gate()

    async def click() -> str:
        try:
            await relay.sessions.approve(session, actor="me")
        except NoGate:
            return "no gate"
        return "passed"

    seen = Counter(await asyncio.gather(*(click() for _ in range(64))))
    assert seen == {"passed": 1, "no gate": 63}
    assert len(await relay.rows(REVIEWS)) == 1
    assert await relay.cursor(session) == ("RUNNING", 2, "THINK", 1, 1)
    assert len(await relay.claim(session)) == 1


async def test_without_a_gate_there_is_nothing_to_approve(relay: Relay):
    session = await relay.session()
    with pytest.raises(NoGate, match="is RUNNING"):
        await relay.sessions.approve(session, actor="me")
    assert await relay.rows(REVIEWS) == []


async def test_an_approval_of_what_was_edited_since_is_refused(relay: Relay):
    session = await relay.at_gate()
    seen = await standing(relay, session)
    await edit(relay, session, '"better"')
    with pytest.raises(StaleRevision, match=rf"you looked at {seen}\."):
        await relay.sessions.approve(session, actor="me", revision=seen)
    assert (await relay.cursor(session))[0] == "AWAITING_REVIEW"
    await relay.sessions.approve(session, actor="me", revision=await standing(relay, session))
    assert [r.approved_at is not None for r in await relay.sessions.revisions(session)] == [
        False,
        True,
    ]
    data = (await relay.tasks.load_sessions([session]))[session]
    assert data.outputs == {1: '"better"'}


async def test_phase_0_is_no_phase_and_never_the_current_one(relay: Relay):
    session = await relay.at_gate()
    for verb in (Verb.RERUN, Verb.EDIT):
        with pytest.raises(Conflict, match="Phase 0"):
            review = Review(verb=verb, actor="me", phase=0, output="x")
            await relay.sessions.reviews.take(session, review)
    assert (await relay.cursor(session))[0] == "AWAITING_REVIEW"


async def test_an_approval_sent_again_with_its_key_is_the_same_decision(relay: Relay):
    session = await relay.at_gate()
    for _ in range(2):
        await relay.sessions.approve(session, actor="me", idempotency_key="k")
    assert len(await relay.rows(REVIEWS)) == 1
    assert await relay.cursor(session) == ("RUNNING", 2, "THINK", 1, 1)


async def test_an_approval_sent_again_at_the_next_gate_is_of_the_first_one(relay: Relay):
    session = await relay.at_gate()
    revision = await standing(relay, session)
    await relay.sessions.approve(session, actor="me", idempotency_key="k")
    (think,) = await relay.claim(session)
    (integrate,) = await relay.complete(advance(think))
    await relay.complete(gate(integrate))
    again = await relay.sessions.approve(session, actor="me", idempotency_key="k")
    assert again == Reviewed(status="AWAITING_REVIEW", phase=1, revision=revision, repeated=True)
    assert await standing(relay, session) != revision


async def test_one_key_at_the_same_moment_is_one_decision_and_no_error(relay: Relay):
    session = await relay.at_gate()
    await asyncio.gather(
        *(relay.sessions.approve(session, actor="me", idempotency_key="k") for _ in range(16))
    )
    assert len(await relay.rows(REVIEWS)) == 1


async def test_a_key_of_another_decision_is_refused(relay: Relay):
    first, other = await relay.at_gate(), await relay.at_gate()
    await relay.sessions.approve(first, actor="me", idempotency_key="k")
    with pytest.raises(Conflict, match="another decision"):
        await relay.sessions.approve(other, actor="me", idempotency_key="k")
    assert (await relay.cursor(other))[0] == "AWAITING_REVIEW"


async def test_a_key_that_another_decision_takes_at_the_same_moment_is_refused(relay: Relay):
    first, other = await relay.at_gate(), await relay.at_gate()
    held = relay.connection.transaction()
    await held.start()
    await relay.connection.execute(
        "INSERT INTO ekiden.reviews (session_id, phase, verb, actor, idempotency_key)"
        " VALUES ($1, 1, 'approve', 'me', 'k')",
        first,
    )
    approving = asyncio.create_task(relay.sessions.approve(other, actor="me", idempotency_key="k"))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    with pytest.raises(Conflict, match="another decision"):
        await approving
    assert (await relay.cursor(other))[0] == "AWAITING_REVIEW"


async def test_a_gate_that_opens_this_moment_can_be_passed(relay: Relay):
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute))
    held = relay.connection.transaction()
    await held.start()
    await relay.complete(gate(integrate))
    approving = asyncio.create_task(relay.sessions.approve(execute.session_id, actor="me"))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    await approving
    assert await relay.cursor(execute.session_id) == ("RUNNING", 2, "THINK", 1, 1)


async def test_outputs_of_automatic_phases_are_loaded_for_the_next(relay: Relay):
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute, result="[1, 2]"))
    loaded = (await relay.tasks.load_sessions([execute.session_id]))[execute.session_id]
    assert (loaded.plan, loaded.found, loaded.outputs) == ('{"ok": true}', ["[1, 2]"], {})
    (think,) = await relay.complete(next_phase(integrate, result='{"a": "é"}'))
    loaded = (await relay.tasks.load_sessions([think.session_id]))[think.session_id]
    assert (loaded.phase, loaded.plan, loaded.found) == (2, None, [])
    assert loaded.outputs == {1: '{"a": "é"}'}

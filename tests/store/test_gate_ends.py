"""A gate's deadline and reminder are of one opening of it, and nobody decides beside them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ekiden.core.model import Review, Verb
from ekiden.store.decisions import approve_unasked
from ekiden.store.errands import Errand, Errands
from tests.store.helpers import Relay, advance, finish, second, someone_waits

EDIT = Review(verb=Verb.EDIT, actor="me", phase=1, output="better")


def policy(then: str) -> dict[int, dict[str, object]]:
    return {1: {"remindAfter": 0, "waitAtMost": 0, "then": then}}


async def due(relay: Relay) -> tuple[Errand, Errand]:
    """Return the newest deadline and reminder."""
    claimed = await Errands(relay.pool, relay.dsn).claim(16, [], timedelta(0))
    newest = {errand.kind: errand for errand in sorted(claimed, key=lambda errand: errand.id)}
    return newest["deadline"], newest["reminder"]


async def complete(relay: Relay, session: str) -> None:
    """Bring a session from its gate to its end."""
    await relay.sessions.approve(session, actor="me")
    (think,) = await relay.claim(session)
    (integrate,) = await relay.complete(advance(think))
    await relay.complete(finish(integrate))


@pytest.mark.parametrize(("then", "status"), [("cancel", "CANCELLED"), ("approve", "COMPLETED")])
async def test_what_was_due_of_a_gate_that_was_passed_leaves_it_alone_when_it_opens_again(
    relay: Relay, then: str, status: str
):
    errands = Errands(relay.pool, relay.dsn)
    session = await relay.at_gate(gates=policy(then))
    deadline, reminder = await due(relay)
    await complete(relay, session)
    assert not await errands.end_gate(deadline)
    await relay.sessions.reviews.take(session, EDIT)
    assert not await errands.remind(reminder)
    assert not await errands.end_gate(deadline)
    assert (await relay.cursor(session))[:2] == ("AWAITING_REVIEW", 1)
    deadline, reminder = await due(relay)
    assert await errands.remind(reminder)
    assert await errands.end_gate(deadline)
    assert (await relay.cursor(session))[0] == status


async def test_an_edit_at_an_open_gate_does_not_begin_its_time_anew(relay: Relay):
    session = await relay.at_gate(gates=policy("approve"))
    deadline, _ = await due(relay)
    edited = await relay.sessions.reviews.take(session, EDIT)
    newest, _ = await due(relay)
    assert newest.id == deadline.id
    assert await Errands(relay.pool, relay.dsn).end_gate(deadline)
    approved = [r.id for r in await relay.sessions.revisions(session) if r.approved_at]
    assert approved == [edited.revision]
    last = (await relay.sessions.reviews.of(session))[-1]
    assert (last.verb, last.actor, last.comment) == (
        "approve", "deadline", "Nobody decided in time.",
    )  # fmt: skip


async def test_who_approves_in_the_last_moment_is_not_cancelled(relay: Relay):
    session = await relay.at_gate(gates=policy("cancel"))
    deadline, _ = await due(relay)
    held = relay.connection.transaction()
    await held.start()
    await approve_unasked(relay.connection, session, "me")
    ending = asyncio.create_task(Errands(relay.pool, relay.dsn).end_gate(deadline))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    assert not await ending
    assert await relay.cursor(session) == ("RUNNING", 2, "THINK", 1, 1)

"""Finished sessions are put away and brought back; lists and counts leave them out."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ekiden.core.model import Review, StepKind, Verb
from ekiden.errors import Conflict, NotFound
from tests.store.helpers import ERROR, Relay, finish, gate, second, someone_waits

NOBODY = "01890000-0000-7000-8000-000000000000"


async def ended(relay: Relay, status: str) -> str:
    task = await relay.started()
    match status:
        case "COMPLETED":
            await relay.complete(finish(task))
        case "FAILED":
            await relay.tasks.fail(task, ERROR)
        case "CANCELLED":
            await relay.sessions.cancel(task.session_id, actor="me")
    return task.session_id


async def shown(relay: Relay, *, archived: bool = False) -> set[str]:
    """The sessions of the API's list, which are those of the page's."""
    lines = {line.id for line in await relay.sessions.find(archived=archived)}
    assert lines == {row.id for row in await relay.sessions.lists.sessions(archived=archived)}
    return lines


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_a_finished_session_leaves_the_lists_and_comes_back(relay: Relay, status: str):
    session, other = await ended(relay, status), await ended(relay, "CANCELLED")
    for _ in range(2):  # safe to repeat, and told once
        await relay.sessions.archive.put_one(session, actor="Mika")
    assert await shown(relay) == {other}
    assert await shown(relay, archived=True) == {session}
    seen = await relay.sessions.get(session)
    assert (seen.status, seen.archived_at is not None) == (status, True)
    assert (await relay.sessions.progress(session))["archivedAt"] == seen.archived_at
    for _ in range(2):
        await relay.sessions.archive.put_one(session, actor="Ken", back=True)
    assert await shown(relay) == {session, other}
    told = [(e.type, e.data) for e in await relay.sessions.events(session) if "arch" in e.type]
    assert told == [
        ("session_archived", {"actor": "Mika"}),
        ("session_unarchived", {"actor": "Ken"}),
    ]


async def test_counts_and_the_inbox_leave_an_archived_failure_out(relay: Relay):
    session = await ended(relay, "FAILED")
    lists, metrics = relay.sessions.lists, relay.sessions.metrics
    assert await lists.waiting_count() == 1
    assert [row.id for row in await lists.waiting()] == [session]
    assert (await metrics.present()).sessions == {"FAILED": 1}
    await relay.sessions.archive.put_one(session, actor="me")
    assert await lists.waiting_count() == 0
    assert await lists.waiting() == []
    assert (await metrics.present()).sessions == {}


async def test_many_are_put_away_at_once_and_each_says_what_became_of_it(relay: Relay):
    done, failed = await ended(relay, "COMPLETED"), await ended(relay, "FAILED")
    runs = (await relay.started()).session_id
    given = [failed, "x", runs, done, NOBODY, done]
    found = await relay.sessions.archive.put(given, actor="me")
    assert [(p.id, p.archived, type(p.refused)) for p in found] == [
        (failed, True, type(None)),
        ("x", False, NotFound),
        (runs, False, Conflict),
        (done, True, type(None)),
        (NOBODY, False, NotFound),
    ]
    assert await shown(relay) == {runs}
    elsewhere = await relay.sessions.archive.put([done], actor="me", back=True, flow="another")
    assert isinstance(elsewhere[0].refused, NotFound)
    assert await shown(relay, archived=True) == {done, failed}


async def test_what_goes_on_is_not_archived(relay: Relay):
    waits = await relay.started()
    await relay.complete(gate(waits))
    runs, paused = (await relay.started()).session_id, (await relay.started()).session_id
    await relay.sessions.pause(paused, actor="me")
    for session in (waits.session_id, runs, paused):
        with pytest.raises(Conflict, match="only a finished one"):
            await relay.sessions.archive.put_one(session, actor="me")
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await relay.connection.execute(
                "UPDATE ekiden.sessions SET archived_at = now() WHERE id = $1", session
            )
        assert caught.value.constraint_name == "session_is_archived_once_it_stands_still"
    with pytest.raises(NotFound):
        await relay.sessions.archive.put_one(NOBODY, actor="me")


async def test_who_takes_a_session_up_again_brings_it_back(relay: Relay):
    failed = await ended(relay, "FAILED")
    await relay.sessions.archive.put_one(failed, actor="me")
    await relay.sessions.resume(failed, actor="me")
    assert (await relay.sessions.get(failed)).archived_at is None
    reruns = {
        Verb.RERUN: Review(verb=Verb.RERUN, actor="me", phase=1, step=StepKind.THINK),
        Verb.EDIT: Review(verb=Verb.EDIT, actor="me", phase=1, output={}),
    }
    for verb, review in reruns.items():
        task = await relay.started()
        await relay.complete(gate(task))
        await relay.sessions.cancel(task.session_id, actor="me")
        with pytest.raises(Conflict):  # CANCELLED is for good, put away or not
            await relay.sessions.reviews.take(task.session_id, review)
        task = await relay.started()
        await relay.complete(gate(task))
        # A failure after the gate, as a task of the next phase brings it.
        await relay.connection.execute(
            "UPDATE ekiden.sessions SET status = 'FAILED', error = '{}', waiting_since = NULL,"
            " archived_at = now() WHERE id = $1",
            task.session_id,
        )
        await relay.sessions.reviews.take(task.session_id, review)
        assert (await relay.sessions.get(task.session_id)).archived_at is None, verb


async def test_a_resume_that_comes_first_wins(relay: Relay):
    session = await ended(relay, "FAILED")
    held = relay.connection.transaction()
    await held.start()
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET status = 'RUNNING', error = NULL WHERE id = $1", session
    )
    late = asyncio.create_task(relay.sessions.archive.put_one(session, actor="me"))
    async with second(relay.dsn) as watching:
        await someone_waits(watching, 1)
    await held.commit()
    with pytest.raises(Conflict, match="is RUNNING"):
        await late
    assert (await relay.sessions.get(session)).archived_at is None

"""Sessions: created, started, paused, resumed, cancelled, and looked at."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from ekiden.core.model import Options
from ekiden.errors import Conflict, NotFound, UnknownFlow
from tests.store.helpers import (
    ERROR,
    FLOW,
    Relay,
    advance,
    finish,
    gate,
    second,
    someone_waits,
)

NOBODY = "01890000-0000-7000-8000-000000000000"


async def create(relay: Relay, key: str | None = None, flow: str = FLOW) -> tuple[str, bool]:
    return await relay.sessions.create(
        flow, title="t", input={}, options=Options(), idempotency_key=key
    )


async def test_a_new_session_holds_its_first_task_until_it_is_started(relay: Relay):
    session, new = await create(relay)
    assert new
    assert await relay.cursor(session) == ("RUNNING", 1, "THINK", 1, 1)
    assert await relay.claim() == []
    assert await relay.sessions.start(session) == 1
    (task,) = await relay.claim()
    assert (task.session_id, task.phase, task.step, task.generation) == (session, 1, "THINK", 1)


async def test_a_session_keeps_its_input_and_options(relay: Relay):
    options = Options(
        auto_steps=False,
        auto_phases=True,
        max_retries=7,
        retry_delay=timedelta(milliseconds=250),
        timeout=timedelta(seconds=9),
    )
    given = {"theme": "駅伝 🏃 \0", "n": 1.5}
    session, _ = await relay.sessions.create(FLOW, title="t" * 600, input=given, options=options)
    seen = await relay.sessions.get(session)
    assert seen.input == given
    assert seen.title == "t" * 500
    data = (await relay.tasks.load_sessions([session]))[session]
    assert data.options == options
    assert (data.phase, data.generation, data.outputs, data.plan, data.found) == (
        1,
        1,
        {},
        None,
        [],
    )


async def test_a_session_id_is_a_version_7_uuid_that_sorts_by_time(relay: Relay):
    ids = []
    for _ in range(3):
        ids.append(await relay.session())
        await relay.connection.execute("SELECT pg_sleep(0.002)")
    assert {UUID(i).version for i in ids} == {7}
    assert {UUID(i).variant for i in ids} == {"specified in RFC 4122"}
    assert sorted(ids) == ids
    assert [line.id for line in await relay.sessions.find()] == ids[::-1]


async def test_a_session_takes_the_newest_version_of_its_flow(relay: Relay):
    newer = await relay.workers.register_flow(
        name=FLOW, version="2", title="Relay", phases=[], input_schema={}
    )
    session, _ = await create(relay)
    assert (await relay.sessions.get(session)).flow_id == newer


async def test_a_flow_nobody_registered_is_unknown(relay: Relay):
    with pytest.raises(UnknownFlow, match="'nope'"):
        await create(relay, flow="nope")
    with pytest.raises(UnknownFlow, match="'nope'"):
        await create(relay, "key", flow="nope")
    assert await relay.sessions.find() == []


async def test_the_same_idempotency_key_gives_the_same_session(relay: Relay):
    first, new = await create(relay, "k")
    again, new_again = await create(relay, "k")
    assert (first, new, new_again) == (again, True, False)
    assert len(await relay.sessions.tasks(first)) == 1
    other, _ = await create(relay, "another")
    assert other != first


async def test_one_key_used_at_the_same_moment_makes_one_session(relay: Relay):
    # The first insert is held open, so that the others meet it before it is committed.
    held = relay.connection.transaction()
    await held.start()
    await relay.connection.execute(
        "INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,"
        " retry_delay, timeout, idempotency_key)"
        " VALUES ($1, 't', '{}', true, false, 3, '1s', '1m', 'k')",
        relay.flow_id,
    )
    others = [asyncio.create_task(create(relay, "k")) for _ in range(3)]
    async with second(relay.dsn) as watching:
        await someone_waits(watching, 3)
    await held.commit()
    found = {await other for other in others}
    assert {new for _, new in found} == {False}
    assert {session for session, _ in found} == {line.id for line in await relay.sessions.find()}


async def test_starting_twice_starts_once(relay: Relay):
    session, _ = await create(relay)
    assert sorted(await asyncio.gather(*(relay.sessions.start(session) for _ in range(8)))) == [
        *[0] * 7,
        1,
    ]
    assert [e.type for e in await relay.sessions.events(session)] == [
        "session_created",
        "step_started",
    ]


@pytest.mark.parametrize("wrong", [NOBODY, "no-uuid"])
async def test_an_unknown_session_is_not_found(relay: Relay, wrong: str):
    sessions = relay.sessions
    for asked in [
        sessions.start(wrong),
        sessions.approve(wrong, actor="me"),
        sessions.pause(wrong, actor="me"),
        sessions.resume(wrong, actor="me"),
        sessions.cancel(wrong, actor="me"),
        sessions.get(wrong),
        sessions.progress(wrong),
    ]:
        with pytest.raises(NotFound, match="There is no session"):
            await asked


async def test_pausing_holds_what_is_queued_and_lets_run_what_runs(relay: Relay):
    running, queued = await relay.executing(2)
    await relay.tasks.release(queued)
    await relay.sessions.pause(running.session_id, actor="me")
    assert await relay.claim() == []
    assert await relay.task(running.id) == "RUNNING"
    await relay.complete(advance(running))
    await relay.sessions.resume(running.session_id, actor="me")
    assert [t.id for t in await relay.claim()] == [queued.id]


async def test_pausing_and_resuming_again_is_no_error_and_no_event(relay: Relay):
    session = await relay.session()
    for _ in range(2):
        await relay.sessions.pause(session, actor="me")
    for _ in range(2):
        await relay.sessions.resume(session, actor="me")
    events = await relay.sessions.events(session)
    assert [(e.type, e.data) for e in events[1:]] == [
        ("session_paused", {"actor": "me"}),
        ("session_resumed", {"actor": "me"}),
    ]


async def test_resuming_a_failed_session_repeats_only_what_failed_with_a_fresh_budget(relay: Relay):
    failed, done = await relay.executing(2)
    await relay.complete(advance(done))
    await relay.tasks.fail(failed, ERROR)
    await relay.sessions.resume(failed.session_id, actor="me")
    (again,) = await relay.claim()
    assert (again.id, again.attempt, again.budget_from) == (failed.id, 2, 1)
    assert await relay.task(done.id) == "COMPLETED"
    assert (await relay.sessions.get(failed.session_id)).error is None
    (following,) = await relay.complete(advance(again))
    assert following.step == "INTEGRATE"


async def test_cancelling_ends_every_task_and_the_attempt_that_ran(relay: Relay):
    running, queued, done = await relay.executing(3)
    await relay.complete(advance(done))
    await relay.tasks.release(queued)
    await relay.sessions.cancel(running.session_id, actor="me")
    assert [await relay.task(t.id) for t in (running, queued, done)] == [
        "CANCELLED",
        "CANCELLED",
        "COMPLETED",
    ]
    assert [a.outcome for a in await relay.sessions.attempts(running.session_id, running.id)] == [
        "CANCELLED"
    ]
    assert [a.outcome for a in await relay.sessions.attempts(running.session_id, queued.id)] == [
        "RELEASED"
    ]
    await relay.sessions.cancel(running.session_id, actor="again")
    with pytest.raises(Conflict, match="create a new one"):
        await relay.sessions.resume(running.session_id, actor="me")


async def test_a_completed_session_cannot_be_cancelled(relay: Relay):
    task = await relay.started()
    await relay.complete(finish(task))
    with pytest.raises(Conflict, match="It is done"):
        await relay.sessions.cancel(task.session_id, actor="me")


@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_what_a_hand_off_adds_meanwhile_is_stopped_as_well(relay: Relay, verb: str):
    task = await relay.started()
    held = relay.connection.transaction()
    await held.start()
    await relay.complete(advance(task, items=3, room=1))
    stopping = asyncio.create_task(getattr(relay.sessions, verb)(task.session_id, actor="me"))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    await held.commit()
    await stopping
    assert await relay.claim() == []
    left = [t.status for t in await relay.sessions.tasks(task.session_id)]
    assert (
        left
        == {
            "cancel": ["COMPLETED", *["CANCELLED"] * 3],
            "pause": ["COMPLETED", "RUNNING", "QUEUED", "QUEUED"],
        }[verb]
    )


async def test_a_task_claimed_while_its_session_is_cancelled_has_its_attempt_recorded(relay: Relay):
    session = await relay.session()
    held = relay.connection.transaction()
    await held.start()
    (task_id,) = await relay.row("SELECT id FROM ekiden.api_tasks FOR UPDATE")
    cancelling = asyncio.create_task(relay.sessions.cancel(session, actor="me"))
    async with second(relay.dsn) as watching:
        await someone_waits(watching)
    # What a claim does, and cannot be made to do slowly.
    await relay.connection.execute(
        "UPDATE ekiden.api_tasks SET status = 'RUNNING', queued = false, attempt = 1,"
        " worker_id = $1, started_at = now()",
        relay.worker,
    )
    await held.commit()
    await cancelling
    assert await relay.task(task_id) == "CANCELLED"
    assert [a.outcome for a in await relay.sessions.attempts(session, task_id)] == ["CANCELLED"]


async def test_progress_follows_a_session_from_its_creation_to_its_gate(relay: Relay):
    session, _ = await create(relay)

    async def five():
        seen = await relay.sessions.progress(session)
        return tuple(list(seen.values())[:5])

    assert await five() == (1, "THINK", [], False, True)
    await relay.sessions.start(session)
    assert await five() == (1, "THINK", [], False, False)
    (think,) = await relay.claim(session)
    execute = await relay.complete(advance(think, items=2, room=2))
    assert await five() == (1, "EXECUTE", [], False, False)
    (integrate,) = await relay.complete(*(advance(t) for t in execute))
    await relay.complete(gate(integrate))
    assert await five() == (1, "INTEGRATE", [1], True, True)
    seen = await relay.sessions.progress(session)
    assert seen["revision"] == (await relay.sessions.revisions(session))[0].id
    assert [s["completed"] for s in seen["phases"][0]["steps"]] == [1, 2, 1]


async def test_lists_are_filtered_and_paged(relay: Relay):
    sessions = [await relay.session() for _ in range(3)]
    await relay.sessions.cancel(sessions[1], actor="me")
    assert [s.id for s in await relay.sessions.find(status="RUNNING")] == [sessions[2], sessions[0]]
    page = await relay.sessions.find(limit=2)
    assert [s.id for s in await relay.sessions.find(after=page[-1].id)] == [sessions[0]]
    assert await relay.sessions.find(flow="nope") == []


async def test_a_worker_that_serves_the_flow_is_seen_until_its_lease_ends(relay: Relay):
    session = await relay.session()
    assert (await relay.sessions.get(session)).has_worker
    assert (await relay.sessions.flows())[0].has_worker
    await relay.connection.execute("UPDATE ekiden.workers SET lease_until = now()")
    assert not (await relay.sessions.get(session)).has_worker
    assert [w.state for w in await relay.sessions.workers()] == ["LOST"]

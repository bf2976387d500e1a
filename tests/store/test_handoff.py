"""The hand-off statement: what is stored, what follows, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.store.helpers import ERROR, Relay, advance, finish, gate, next_phase

OF_SESSION = """
SELECT step, item, status, queued, awaiting, worker_id FROM ekiden.api_tasks
WHERE session_id = $1 AND (phase, step) = ($2, $3) ORDER BY item
"""


async def refused(relay: Relay, completion) -> bool:
    handed = await relay.handoff.complete(relay.worker, [completion])
    return (handed.accepted, handed.following, handed.left_queued) == (set(), {}, False)


async def everything(relay: Relay) -> list[object]:
    """Return all that a hand-off may write."""
    tables = ["api_tasks", "sessions", "attempts", "events", "revisions", "phase_runs", "drafts"]
    return [await relay.rows(f"SELECT t::text FROM ekiden.{name} t ORDER BY 1") for name in tables]


async def test_a_completed_step_is_stored_with_the_attempt_that_did_it(relay: Relay):
    task = await relay.started()
    await relay.complete(advance(task, result='{"plan": [1, 2]}', reads="{1,3}"))
    stored = await relay.task(
        task.id, "status, result::text, reads, attempt, completed_at IS NOT NULL"
    )
    assert stored == ("COMPLETED", '{"plan": [1, 2]}', [1, 3], 1, True)
    assert await relay.rows("SELECT task_id, number, worker_id, outcome FROM ekiden.attempts") == [
        (task.id, 1, relay.worker, "COMPLETED")
    ]


async def test_the_next_step_comes_back_already_claimed(relay: Relay):
    task = await relay.started()
    (following,) = await relay.complete(advance(task))
    assert (following.phase, following.step, following.item) == (1, "EXECUTE", 0)
    assert (following.attempt, following.budget_from, following.request) == (1, 0, None)
    assert await relay.task(following.id, "status, attempt, worker_id") == (
        "RUNNING", 1, relay.worker,
    )  # fmt: skip
    assert await relay.cursor(task.session_id) == ("RUNNING", 1, "EXECUTE", 1, 1)
    assert await relay.claim() == []


@pytest.mark.parametrize("wrong", ["an older attempt", "a later attempt"])
async def test_a_completion_whose_token_does_not_fit_changes_nothing(relay: Relay, wrong: str):
    task = await relay.started()
    assert await relay.tasks.release(task)
    (task,) = await relay.claim(task.session_id)
    stale = {
        "an older attempt": replace(task, attempt=task.attempt - 1),
        "a later attempt": replace(task, attempt=task.attempt + 1),
    }[wrong]
    before = await everything(relay)
    assert await refused(relay, advance(stale))
    assert await everything(relay) == before
    await relay.complete(advance(task))


@pytest.mark.parametrize("state", ["QUEUED", "COMPLETED", "FAILED", "CANCELLED"])
async def test_a_completion_of_a_task_that_does_not_run_changes_nothing(relay: Relay, state: str):
    task = await relay.started()
    if state == "QUEUED":
        await relay.tasks.release(task)
    elif state == "COMPLETED":
        await relay.complete(advance(task))
    elif state == "FAILED":
        await relay.tasks.fail(task, ERROR)
    else:
        await relay.sessions.cancel(task.session_id, actor="me")
    before = await everything(relay)
    assert await refused(relay, advance(task, result='"another"'))
    assert await everything(relay) == before


async def test_a_task_left_running_in_a_session_that_ended_cannot_move_it(relay: Relay):
    task = await relay.started()
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET status = 'CANCELLED', completed_at = now()"
    )
    assert await refused(relay, advance(task))
    assert await relay.task(task.id) == "RUNNING"
    assert await relay.cursor(task.session_id) == ("CANCELLED", 1, "THINK", 1, 1)


async def test_a_batch_refuses_one_and_accepts_the_rest(relay: Relay):
    first, stale, last = [await relay.started() for _ in range(3)]
    await relay.tasks.release(stale)
    handed = await relay.handoff.complete(relay.worker, [advance(t) for t in (first, stale, last)])
    assert handed.accepted == {0, 2}
    assert {n: t.session_id for n, (t,) in handed.following.items()} == {
        0: first.session_id,
        2: last.session_id,
    }


async def test_an_empty_batch_changes_nothing(relay: Relay):
    await relay.started()
    before = await everything(relay)
    handed = await relay.handoff.complete(relay.worker, [])
    assert (handed.accepted, handed.following, handed.left_queued) == (set(), {}, False)
    assert await everything(relay) == before


async def test_one_completion_twice_in_a_batch_is_applied_once(relay: Relay):
    task = await relay.started()
    handed = await relay.handoff.complete(relay.worker, [advance(task), advance(task)])
    assert len(handed.accepted) == 1
    assert len(handed.following) == 1
    assert await relay.cursor(task.session_id) == ("RUNNING", 1, "EXECUTE", 1, 1)
    assert len(await relay.rows("SELECT FROM ekiden.attempts")) == 1


async def test_a_completion_sent_again_is_refused_and_hands_nothing_on(relay: Relay):
    task = await relay.started()
    await relay.complete(advance(task))
    before = await everything(relay)
    assert await refused(relay, advance(task))
    assert await everything(relay) == before


async def test_a_fan_out_inserts_every_item_and_claims_as_many_as_there_is_room(relay: Relay):
    task = await relay.started()
    handed = await relay.handoff.complete(relay.worker, [advance(task, items=5, room=2)])
    assert handed.left_queued
    assert [(t.item, t.request) for t in handed.following[0]] == [(0, '"item 0"'), (1, '"item 1"')]
    mine = ("RUNNING", False, False, relay.worker)
    queued = ("QUEUED", True, False, None)
    assert await relay.rows(OF_SESSION, task.session_id, 1, "EXECUTE") == [
        ("EXECUTE", n, *(mine if n < 2 else queued)) for n in range(5)
    ]
    assert await relay.cursor(task.session_id) == ("RUNNING", 1, "EXECUTE", 1, 5)
    rest = await relay.claim()
    assert [(t.item, t.request) for t in rest] == [(n, f'"item {n}"') for n in (2, 3, 4)]


async def test_a_fan_out_with_room_for_all_leaves_nothing_queued(relay: Relay):
    task = await relay.started()
    handed = await relay.handoff.complete(relay.worker, [advance(task, items=3, room=3)])
    assert (len(handed.following[0]), handed.left_queued) == (3, False)


@pytest.mark.parametrize("items", [None, 2])
async def test_a_worker_without_room_leaves_everything_queued(relay: Relay, items: int | None):
    task = await relay.started()
    handed = await relay.handoff.complete(relay.worker, [advance(task, items=items, room=0)])
    assert (handed.accepted, handed.following, handed.left_queued) == ({0}, {}, True)
    assert len(await relay.claim(task.session_id)) == (items or 1)


async def test_siblings_in_one_batch_close_the_step_once(relay: Relay):
    siblings = await relay.executing(3)
    (following,) = await relay.complete(*(advance(t) for t in siblings))
    assert following.step == "INTEGRATE"
    assert await relay.cursor(following.session_id) == ("RUNNING", 1, "INTEGRATE", 1, 1)


async def test_siblings_in_two_batches_close_the_step_with_the_second(relay: Relay):
    first, second, third = await relay.executing(3)
    assert await relay.complete(advance(first), advance(third)) == []
    assert await relay.cursor(first.session_id) == ("RUNNING", 1, "EXECUTE", 1, 1)
    (following,) = await relay.complete(advance(second))
    assert following.step == "INTEGRATE"


async def test_a_failed_sibling_keeps_the_step_open_and_the_others_results(relay: Relay):
    failed, fine = await relay.executing(2)
    await relay.tasks.fail(failed, ERROR)
    assert await relay.complete(advance(fine)) == []
    assert await relay.task(fine.id) == "COMPLETED"
    assert await relay.cursor(fine.session_id) == ("FAILED", 1, "EXECUTE", 1, 1)


async def test_hold_leaves_the_next_step_for_a_person_to_start(relay: Relay):
    task = await relay.started()
    handed = await relay.handoff.complete(relay.worker, [advance(task, items=2, room=2, hold=True)])
    assert (handed.following, handed.left_queued) == ({}, False)
    assert await relay.claim() == []
    assert await relay.sessions.start(task.session_id) == 2
    assert len(await relay.claim()) == 2


async def test_a_paused_session_holds_the_next_step(relay: Relay):
    task = await relay.started()
    await relay.sessions.pause(task.session_id, actor="me")
    assert await relay.complete(advance(task)) == []
    assert await relay.cursor(task.session_id) == ("PAUSED", 1, "EXECUTE", 1, 1)
    assert await relay.claim() == []
    await relay.sessions.resume(task.session_id, actor="me")
    assert [t.step for t in await relay.claim()] == ["EXECUTE"]


async def test_a_gate_inserts_a_revision_that_nobody_approved_yet(relay: Relay):
    session = await relay.at_gate()
    assert await relay.cursor(session) == ("AWAITING_REVIEW", 1, "INTEGRATE", 1, 0)
    (revision,) = await relay.sessions.revisions(session)
    assert (revision.phase, revision.number, revision.author) == (1, 1, "model")
    assert (revision.output, revision.approved_at) == ("output", None)
    assert await relay.claim() == []
    assert [e.type for e in await relay.sessions.events(session)][-1] == "gate_opened"


async def test_a_paused_session_whose_phase_ends_comes_to_its_gate(relay: Relay):
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute))
    await relay.sessions.pause(execute.session_id, actor="me")
    await relay.complete(gate(integrate))
    assert (await relay.cursor(execute.session_id))[0] == "AWAITING_REVIEW"


async def test_an_automatic_phase_is_approved_and_the_next_begins_claimed(relay: Relay):
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute))
    (think,) = await relay.complete(next_phase(integrate))
    assert (think.phase, think.step, think.generation) == (2, "THINK", 1)
    assert await relay.cursor(think.session_id) == ("RUNNING", 2, "THINK", 1, 1)
    (revision,) = await relay.sessions.revisions(think.session_id)
    assert revision.approved_at is not None
    assert await relay.rows(
        "SELECT phase, generation FROM ekiden.phase_runs WHERE session_id = $1 ORDER BY 1",
        think.session_id,
    ) == [(1, 1), (2, 1)]


async def test_an_automatic_phase_that_ran_before_gets_its_next_generation(relay: Relay):
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute))
    await relay.connection.execute(
        "INSERT INTO ekiden.phase_runs VALUES ($1, 2, 1), ($1, 2, 2)", execute.session_id
    )
    (think,) = await relay.complete(next_phase(integrate))
    assert think.generation == 3
    assert await relay.cursor(think.session_id) == ("RUNNING", 2, "THINK", 3, 1)
    (integrate,) = await relay.complete(advance(think))
    assert integrate.generation == 3


async def test_the_last_phase_ends_the_session_with_its_drafts(relay: Relay):
    drafts = [("One", '{"text": "a"}', "[]"), ("Two", '{"text": "b"}', '[{"url": "u"}]')]
    (execute,) = await relay.executing(1)
    (integrate,) = await relay.complete(advance(execute))
    (think,) = await relay.complete(next_phase(integrate))
    (last,) = await relay.complete(advance(think))
    assert await relay.sessions.drafts(last.session_id) == []
    assert await relay.complete(finish(last, drafts=drafts)) == []
    assert await relay.cursor(last.session_id) == ("COMPLETED", 2, "INTEGRATE", 1, 0)
    assert [
        (d.number, d.title, d.body, d.sources) for d in await relay.sessions.drafts(last.session_id)
    ] == [(1, "One", {"text": "a"}, []), (2, "Two", {"text": "b"}, [{"url": "u"}])]
    assert (await relay.sessions.get(last.session_id)).completed_at is not None
    assert all(r.approved_at for r in await relay.sessions.revisions(last.session_id))


async def test_a_refused_end_leaves_no_draft(relay: Relay):
    task = await relay.started()
    await relay.sessions.cancel(task.session_id, actor="me")
    assert await refused(relay, finish(task, drafts=[("One", "{}", "[]")]))
    assert await relay.sessions.drafts() == []


async def test_an_end_that_leaves_siblings_open_makes_no_drafts_yet(relay: Relay):
    first, second = await relay.executing(2)
    drafts = [("One", "{}", "[]")]
    await relay.complete(finish(first, drafts=drafts))
    assert await relay.sessions.drafts() == []
    await relay.complete(finish(second, drafts=drafts))
    assert len(await relay.sessions.drafts()) == 1


async def test_every_completion_is_told_once_and_in_order(relay: Relay):
    session = await relay.at_gate()
    told = [(e.type, e.phase, e.step) for e in await relay.sessions.events(session)]
    assert told == [
        ("session_created", None, None),
        ("task_completed", 1, "THINK"),
        ("task_completed", 1, "EXECUTE"),
        ("task_completed", 1, "INTEGRATE"),
        ("gate_opened", 1, None),
    ]

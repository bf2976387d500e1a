"""Every state × every event, through the machine and through PostgreSQL: one answer."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from itertools import product
from typing import Any

from ekiden.core.machine import SessionEvent, TaskEvent, session_after, task_after
from ekiden.core.model import ClaimedTask, Review, SessionState, TaskState, Verb
from ekiden.core.retry import MAX_DEATHS
from ekiden.errors import Conflict
from tests.store.helpers import ERROR, Relay, advance, finish, gate

_PUT_TASK = """
UPDATE ekiden.api_tasks
SET status = $2, queued = $2::text = 'QUEUED', awaiting = false,
    result = CASE $2::text WHEN 'COMPLETED' THEN 'true'::json END
WHERE id = $1
"""
_PUT_SESSION = """
UPDATE ekiden.sessions
SET status = $2,
    open_tasks = CASE WHEN $2::text IN ('AWAITING_REVIEW', 'COMPLETED') THEN 0 ELSE $3 END,
    error = CASE $2::text WHEN 'FAILED' THEN '{"message": "before"}'::json END,
    completed_at = CASE WHEN $2::text IN ('COMPLETED', 'CANCELLED') THEN now() END,
    waiting_since = CASE WHEN $2::text = 'AWAITING_REVIEW' THEN now() END
WHERE id = $1
"""
# Whose session a task is in when it is in this state.
_SESSION_OF = {
    TaskState.QUEUED: SessionState.RUNNING,
    TaskState.RUNNING: SessionState.RUNNING,
    TaskState.COMPLETED: SessionState.RUNNING,
    TaskState.FAILED: SessionState.FAILED,
    TaskState.CANCELLED: SessionState.CANCELLED,
}


async def _ask(asked: Awaitable[object]) -> None:
    """Await; a refusal by the state is an answer, not an error."""
    with suppress(Conflict):
        await asked


async def _task_in(relay: Relay, state: TaskState, event: TaskEvent) -> ClaimedTask:
    """Claim the task of a new session on a worker of its own, then put both in their states."""
    worker = await relay.new_worker()
    (task,) = await relay.claim(await relay.session(), worker=worker)
    session = _SESSION_OF[state]
    if event is TaskEvent.RESUME and session is SessionState.RUNNING:
        session = SessionState.FAILED  # else resume has nothing to do and proves nothing
    await relay.connection.execute(_PUT_SESSION, task.session_id, session, 1)
    await relay.connection.execute(_PUT_TASK, task.id, state)
    return task


async def _do_to_task(relay: Relay, task: ClaimedTask, event: TaskEvent) -> None:
    match event:
        case TaskEvent.CLAIM:
            await relay.claim(task.session_id)
        case TaskEvent.COMPLETE:
            await relay.handoff.complete(relay.worker, [advance(task)])
        case TaskEvent.RETRY:
            await relay.tasks.retry(task, ERROR, timedelta(0))
        case TaskEvent.FAIL:
            await relay.tasks.fail(task, ERROR)
        case TaskEvent.RESCUE:
            worker = await relay.task(task.id, "worker_id")
            await relay.workers.rescue([worker], max_deaths=MAX_DEATHS)
        case TaskEvent.DELIVER:
            await _ask(
                relay.sessions.deliver(
                    task.session_id, task_id=task.id, attempt=task.attempt, result=1
                )
            )
        case TaskEvent.RESUME:
            await _ask(relay.sessions.resume(task.session_id, actor="me"))
        case TaskEvent.CANCEL:
            await _ask(relay.sessions.cancel(task.session_id, actor="me"))


async def test_a_task_goes_where_the_machine_says_or_stays_untouched(relay: Relay):
    for state, event in product(TaskState, TaskEvent):
        task = await _task_in(relay, state, event)
        before = await relay.task(task.id, "t::text")
        await _do_to_task(relay, task, event)
        expected = task_after(state, event)
        if expected is None:
            assert await relay.task(task.id, "t::text") == before, (state, event)
        else:
            assert await relay.task(task.id) == expected, (state, event)


async def _session_in(relay: Relay, state: SessionState, event: SessionEvent) -> ClaimedTask:
    """Put a session in its state, with a revision, a task that runs and one that is held."""
    task = await relay.started()
    await relay.connection.execute(
        "INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, output)"
        " VALUES ($1, 1, 1, 2, 'me', 'true')",
        task.session_id,
    )
    await relay.connection.execute(
        "INSERT INTO ekiden.api_tasks"
        " (session_id, flow_id, phase, step, item, generation, awaiting)"
        " VALUES ($1, $2, 1, 'THINK', 1, 1, true)",
        task.session_id,
        relay.flow_id,
    )
    # The task that failed keeps the step of a FAILED session open.
    open_tasks = 2 if state is SessionState.FAILED else 1
    await relay.connection.execute(_PUT_SESSION, task.session_id, state, open_tasks)
    if event is SessionEvent.ACCEPT and state is SessionState.PAUSED:
        await relay.connection.execute(
            'UPDATE ekiden.sessions SET waiting_since = now(), stop = \'{"kind": "items"}\''
            " WHERE id = $1",
            task.session_id,
        )
    return task


_REVIEWS: dict[SessionEvent, tuple[Verb, dict[str, Any]]] = {
    SessionEvent.EDIT: (Verb.EDIT, {"output": "edited"}),
    SessionEvent.REJECT: (Verb.REJECT, {"comment": "again"}),
    SessionEvent.RERUN: (Verb.RERUN, {}),
    SessionEvent.ACCEPT: (Verb.ACCEPT, {}),
}


async def _do_to_session(relay: Relay, task: ClaimedTask, event: SessionEvent) -> None:
    session = task.session_id
    match event:
        case SessionEvent.ADVANCE:
            await relay.handoff.complete(relay.worker, [advance(task)])
        case SessionEvent.OPEN_GATE:
            await relay.handoff.complete(relay.worker, [gate(task)])
        case SessionEvent.FINISH:
            await relay.handoff.complete(relay.worker, [finish(task)])
        case SessionEvent.FAIL:
            await relay.tasks.fail(task, ERROR)
        case SessionEvent.START:
            await _ask(relay.sessions.start(session))
        case SessionEvent.APPROVE:
            await _ask(relay.sessions.approve(session, actor="me"))
        case event if event in _REVIEWS:
            verb, given = _REVIEWS[event]
            review = Review(verb=verb, actor="me", **given)
            await _ask(relay.sessions.reviews.take(session, review))
        case SessionEvent.STOP:
            await relay.tasks.stop_for_budget(task, {"kind": "budget", "message": "spent"})
        case SessionEvent.PAUSE:
            await _ask(relay.sessions.pause(session, actor="me"))
        case SessionEvent.RESUME:
            await _ask(relay.sessions.resume(session, actor="me"))
        case SessionEvent.CANCEL:
            await _ask(relay.sessions.cancel(session, actor="me"))


# What a session is, and what is held of it. A sibling that ends counts open_tasks down in any
# state, so that is no sign.
_SEEN = """
SELECT status, phase, step, generation, error::text, completed_at IS NULL, stop::text,
       (SELECT count(*) FROM ekiden.revisions WHERE session_id = s.id),
       (SELECT count(*) FROM ekiden.api_tasks WHERE session_id = s.id AND awaiting)
FROM ekiden.sessions s WHERE id = $1
"""


async def test_a_session_goes_where_the_machine_says_or_stays_untouched(relay: Relay):
    for state, event in product(SessionState, SessionEvent):
        task = await _session_in(relay, state, event)
        before = await relay.row(_SEEN, task.session_id)
        await _do_to_session(relay, task, event)
        after = await relay.row(_SEEN, task.session_id)
        expected = session_after(state, event)
        if expected is None:
            assert after == before, (state, event)
        else:
            assert after[0] == expected, (state, event)
            assert after != before, (state, event)

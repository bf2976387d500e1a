"""An attempt that failed, was given back, or whose result came from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ekiden.core.model import ClaimedTask, Error
from ekiden.errors import Conflict
from tests.store.helpers import ERROR, NOON, Relay, advance, open_relay

End = Callable[[Relay, ClaimedTask], Awaitable[bool]]


async def retry(relay: Relay, task: ClaimedTask) -> bool:
    return await relay.tasks.retry(task, ERROR, timedelta(0))


async def fail(relay: Relay, task: ClaimedTask) -> bool:
    return await relay.tasks.fail(task, ERROR)


async def release(relay: Relay, task: ClaimedTask) -> bool:
    return await relay.tasks.release(task)


async def deliver(relay: Relay, task: ClaimedTask) -> bool:
    try:
        await relay.sessions.deliver(
            task.session_id, task_id=task.id, attempt=task.attempt, result={"from": "outside"}
        )
    except Conflict:
        return False
    return True


async def outcomes(relay: Relay, task: ClaimedTask) -> list[str]:
    return [a.outcome for a in await relay.sessions.attempts(task.session_id, task.id)]


async def test_a_retried_task_is_due_after_its_delay_and_keeps_the_error(database: str):
    async with open_relay(database, now=NOON) as relay:
        task = await relay.started()
        assert await relay.tasks.retry(task, ERROR, timedelta(seconds=7))
        (line,) = await relay.sessions.tasks(task.session_id)
        assert (line.status, line.queued, line.attempt) == ("QUEUED", True, 1)
        assert line.error == ERROR.as_json()
        assert line.available_at == NOON + timedelta(seconds=7)
        (attempt,) = await relay.sessions.attempts(task.session_id, task.id)
        assert (attempt.outcome, attempt.retry_at) == ("RETRIED", line.available_at)
        seen = await relay.sessions.progress(task.session_id)
        assert seen["waitingFor"]["kind"] == "retry"
        assert seen["error"]["message"] == "no answer"
        assert seen["error"]["retryAt"] == NOON + timedelta(seconds=7)


async def test_what_only_waits_is_told_apart_from_what_failed_whatever_its_last_attempt(
    database: str,
):
    async with open_relay(database, now=NOON) as relay:
        task = await relay.started()
        assert await relay.tasks.retry(task, ERROR, timedelta(0), counts=False)
        seen = await relay.sessions.progress(task.session_id)
        assert (seen["error"], seen["wait"]["message"]) == (None, "no answer")
        (task,) = await relay.claim()
        assert await relay.tasks.retry(task, ERROR, timedelta(0))
        (task,) = await relay.claim()
        await release(relay, task)  # its worker stopped; the error is of the attempt before
        seen = await relay.sessions.progress(task.session_id)
        assert (seen["error"]["message"], seen["wait"]) == ("no answer", None)
        events = await relay.sessions.events(task.session_id)
        told = [e.data["outcome"] for e in events if e.type == "task_retried"]
        assert told == ["RELEASED", "RETRIED"]


async def test_completing_after_a_retry_clears_the_error_and_keeps_the_history(relay: Relay):
    task = await relay.started()
    await retry(relay, task)
    (task,) = await relay.claim()
    await relay.complete(advance(task))
    assert await relay.task(task.id, "error") is None
    assert await outcomes(relay, task) == ["RETRIED", "COMPLETED"]


async def test_a_failed_task_fails_its_session_and_says_where(relay: Relay):
    _, task = await relay.executing(2)
    assert await fail(relay, task)
    session = await relay.sessions.get(task.session_id)
    assert session.status == "FAILED"
    assert session.error == {
        "message": "no answer",
        "kind": "ModelUnavailable",
        "phase": 1,
        "step": "EXECUTE",
        "item": 1,
        "attempt": 1,
        "taskId": task.id,
        "retryAt": None,
    }
    assert (await relay.sessions.progress(task.session_id))["error"] == session.error
    assert await outcomes(relay, task) == ["FAILED"]
    assert (await relay.sessions.events(task.session_id))[-1].data == {
        "attempt": 1,
        "error": "no answer",
        "first": True,
    }


@pytest.mark.parametrize("end", [release, deliver])
async def test_what_is_given_back_or_delivered_does_not_count_as_a_try(relay: Relay, end: End):
    task = await relay.started()
    await end(relay, task)
    (again,) = await relay.claim()
    assert (again.attempt, again.budget_from) == (2, 1)
    assert await outcomes(relay, task) == ["RELEASED", "RUNNING"]


async def test_a_delivered_result_comes_with_the_task_to_whoever_checks_it(relay: Relay):
    task = await relay.started()
    assert await deliver(relay, task)
    (again,) = await relay.claim()
    assert again.delivered == '{"from":"outside"}'
    assert await relay.task(task.id, "result") is None


async def test_a_result_cannot_be_delivered_through_another_session(relay: Relay):
    task, other = await relay.started(), await relay.session()
    assert not await deliver(relay, replace(task, session_id=other))
    assert await relay.task(task.id) == "RUNNING"


@pytest.mark.parametrize("end", [retry, fail, release, deliver])
async def test_an_attempt_that_no_longer_holds_its_task_changes_nothing(relay: Relay, end: End):
    task = await relay.started()
    await release(relay, task)
    (current,) = await relay.claim()
    before = await relay.task(task.id, "t::text"), await relay.cursor(task.session_id)
    assert not await end(relay, task)
    assert (await relay.task(task.id, "t::text"), await relay.cursor(task.session_id)) == before
    assert await outcomes(relay, task) == ["RELEASED", "RUNNING"]
    await relay.complete(advance(current))
    assert not await end(relay, current)
    assert await outcomes(relay, task) == ["RELEASED", "COMPLETED"]


@pytest.mark.parametrize("end", [retry, release, deliver])
async def test_in_a_paused_session_the_task_is_held_until_it_is_resumed(relay: Relay, end: End):
    task = await relay.started()
    await relay.sessions.pause(task.session_id, actor="me")
    assert await end(relay, task)
    assert await relay.task(task.id, "status, queued, awaiting") == ("QUEUED", False, True)
    assert await relay.claim() == []
    await relay.sessions.resume(task.session_id, actor="me")
    assert [t.id for t in await relay.claim()] == [task.id]


@pytest.mark.parametrize("end", [retry, fail, release, deliver])
async def test_a_task_of_a_cancelled_session_stays_cancelled(relay: Relay, end: End):
    task = await relay.started()
    await relay.sessions.cancel(task.session_id, actor="me")
    assert not await end(relay, task)
    assert await relay.task(task.id) == "CANCELLED"
    assert await outcomes(relay, task) == ["CANCELLED"]


async def test_of_two_siblings_that_fail_the_last_ones_error_is_shown(relay: Relay):
    first, last = await relay.executing(2)
    await relay.tasks.fail(first, replace(ERROR, message="first"))
    await relay.tasks.fail(last, replace(ERROR, message="last"))
    error = (await relay.sessions.get(first.session_id)).error
    assert error is not None
    assert error["message"] == "last"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("NUL \0 here", "NUL  here"),
        ("lone \ud83d surrogate", "lone  surrogate"),
        ("駅伝 🏃", "駅伝 🏃"),
        ("\\u0000", "\\u0000"),
    ],
)
@pytest.mark.parametrize("verb", ["retry", "fail"])
async def test_an_error_is_stored_whatever_its_text_holds(
    relay: Relay, text: str, kept: str, verb: str
):
    task = await relay.started()
    error = Error(kind="Odd", message=text, retryable=True, detail=text)
    if verb == "retry":
        assert await relay.tasks.retry(task, error, timedelta(0))
    else:
        assert await relay.tasks.fail(task, error)
    assert (await relay.sessions.progress(task.session_id))["error"]["message"] == kept
    (attempt,) = await relay.sessions.attempts(task.session_id, task.id)
    assert attempt.error is not None
    assert attempt.error["detail"] == kept

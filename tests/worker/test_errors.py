"""After an error: retries are uniform, what was paid for is kept, a person can resume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ekiden import CannotHeal
from ekiden.core.model import Options
from ekiden.errors import ModelBusy, ModelRefused, ModelUnavailable
from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said, ScriptedProvider
from tests.worker.relay import QUICK, House, asks, one_step, working


def word(request: ModelRequest) -> str:
    return json.dumps({"word": request.messages[-1].content})


def failing(question: str, *errors: Exception) -> Callable[[ModelRequest], Said]:
    """Answer every question, but raise these first on one of them."""
    left = list(errors)

    def script(request: ModelRequest) -> Said:
        if request.messages[-1].content == question and left:
            return left.pop(0)
        return word(request)

    return script


async def test_a_failed_attempt_is_repeated_and_its_history_kept(house: House) -> None:
    provider = ScriptedProvider(failing("first", ModelUnavailable("down"), ModelUnavailable("d")))
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks")
        await house.until(session)
    think = (await house.sessions.tasks(session))[0]
    attempts = await house.sessions.attempts(session, think.id)
    assert [a.outcome for a in attempts] == ["RETRIED", "RETRIED", "COMPLETED"]
    assert attempts[0].error is not None
    assert attempts[0].error["message"] == "down"
    assert attempts[0].retry_at is not None


async def test_a_retry_pays_only_for_what_is_missing(house: House) -> None:
    provider = ScriptedProvider(failing("third", ModelUnavailable("cut")))
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks")
        await house.until(session)
    asked = [entry.request.messages[-1].content for entry in provider.answered]
    assert asked == ["first", "second", "third"]
    (draft,) = await house.sessions.drafts(session)
    assert draft.body == {"words": ["first", "second", "third"]}


async def test_every_call_is_in_the_ledger_byte_for_byte(house: House) -> None:
    hostile = b'{"word": "\\u0000\\ud800"}\xff'
    provider = ScriptedProvider([hostile, *('{"word": "fine"}' for _ in range(3))])
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks")
        await house.until(session)
    rows = await house.pool.fetch("SELECT answer, outcome, error FROM ekiden.calls ORDER BY id")
    assert rows[0]["answer"] == hostile
    assert [row["outcome"] for row in rows] == ["INVALID", "ANSWERED", "ANSWERED", "ANSWERED"]
    assert rows[0]["error"]


async def test_a_useless_answer_gets_one_repair_turn_that_shows_what_is_wrong(
    house: House,
) -> None:
    def script(request: ModelRequest) -> str:
        if request.messages[-1].content == "first":
            return '{"word": 7}'
        return '{"word": "repaired"}'

    provider = ScriptedProvider(script)
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks")
        await house.until(session)
    think = (await house.sessions.tasks(session))[0]
    assert think.attempt == 1
    assert think.result == {"word": "repaired"}
    question, said, repair = provider.log[1].request.messages
    assert (question.content, said.content) == ("first", '{"word": 7}')
    assert "word: Input should be a valid string" in repair.content


async def test_usage_and_cost_are_summed_over_the_session(house: House) -> None:
    provider = ScriptedProvider(word, cost_usd=0.25)
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks")
        progress = await house.until(session)
    assert progress["usage"]["calls"] == 3
    assert progress["usage"]["inputTokens"] == 30
    assert progress["usage"]["models"] == ["scripted:scripted-1"]
    assert progress["cost"] == {"usd": 0.75, "callsWithoutPrice": 0}


async def test_nonsense_fails_the_session_with_its_reason_and_makes_no_draft(
    house: House,
) -> None:
    provider = ScriptedProvider(lambda _request: "<html>Bad gateway</html>")
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks", replace(QUICK, max_retries=2))
        progress = await house.until(session, "FAILED")
    assert len(provider.log) == 3 * 2  # three attempts, each with its repair turn
    assert "Bad gateway" in progress["error"]["message"]
    assert progress["error"]["phase"] == 1
    assert progress["error"]["step"] == "THINK"
    assert progress["error"]["attempt"] == 3
    assert progress["waitingFor"]["kind"] == "resume"
    assert await house.sessions.drafts(session) == []


async def test_resume_goes_on_from_the_failed_step_with_a_fresh_budget(house: House) -> None:
    provider = ScriptedProvider(failing("second", *(ModelUnavailable("down") for _ in range(3))))
    options = replace(QUICK, max_retries=1)
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks", options)
        await house.until(session, "FAILED")
        await house.sessions.resume(session, actor="me")
        await house.until(session)
    think, integrate = await house.sessions.tasks(session)
    assert think.attempt == 1
    outcomes = await house.outcomes(session, integrate.id)
    assert outcomes == ["RETRIED", "FAILED", "RETRIED", "COMPLETED"]


@pytest.mark.parametrize(
    "error", [ModelRefused("no such model"), CannotHeal("the theme is empty"), TypeError("a bug")]
)
async def test_what_cannot_heal_is_not_tried_again(house: House, error: Exception) -> None:
    async def fails(_ctx: object) -> str:
        raise error

    async with working(house.dsn, one_step(fails)):
        session = await house.begin("one")
        progress = await house.until(session, "FAILED")
    assert progress["error"]["attempt"] == 1
    assert str(error) in progress["error"]["message"]


async def test_retry_after_is_respected(house: House) -> None:
    async def busy(_ctx: object) -> str:
        raise ModelBusy("slow down", retry_after=1800)

    async with working(house.dsn, one_step(busy)):
        session = await house.begin("one")
        async with asyncio.timeout(5):
            while (await house.sessions.progress(session))["error"] is None:
                await asyncio.sleep(0.005)
    (task,) = await house.sessions.tasks(session)
    (attempt,) = await house.sessions.attempts(session, task.id)
    assert attempt.finished_at is not None
    assert timedelta(seconds=1800) <= task.available_at - attempt.finished_at
    progress = await house.sessions.progress(session)
    assert progress["status"] == "RUNNING"
    assert progress["error"]["retryAt"] == task.available_at


async def test_a_due_retry_is_claimed_without_anyone_ringing(house: House) -> None:
    tries: list[int] = []

    async def second_time(_ctx: object) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ModelUnavailable("down")
        return len(tries)

    # Longer than the commit of the retry takes, far shorter than the sweep.
    options = Options(retry_delay=timedelta(seconds=0.4))
    async with working(house.dsn, one_step(second_time)):
        session = await house.begin("one", options)
        await house.until(session)
    assert len(tries) == 2


async def test_an_attempt_may_not_take_longer_than_the_timeout(house: House) -> None:
    async def hangs(_ctx: object) -> str:
        await asyncio.sleep(3600)
        return "late"

    options = Options(max_retries=0, timeout=timedelta(milliseconds=50))
    async with working(house.dsn, one_step(hangs)):
        session = await house.begin("one", options)
        progress = await house.until(session, "FAILED")
    assert progress["error"]["kind"] == "StepTimeout"
    assert "WORKER_TIMEOUT" in progress["error"]["message"]


async def test_a_result_that_does_not_fit_its_annotation_is_refused(house: House) -> None:
    flow = asks()

    async def lies(_ctx: object) -> object:
        return 42

    flow.phases[0].steps[next(iter(flow.phases[0].steps))].run = lies
    async with working(house.dsn, flow):
        session = await house.begin("asks")
        progress = await house.until(session, "FAILED")
    assert progress["error"]["kind"] == "ResultInvalid"
    assert "phase 1 THINK" in progress["error"]["message"]


async def test_a_cancelled_session_refuses_the_late_result(house: House) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def late(_ctx: object) -> str:
        started.set()
        await finish.wait()
        return "late"

    async with working(house.dsn, one_step(late)):
        session = await house.begin("one")
        await asyncio.wait_for(started.wait(), 5)
        await house.sessions.cancel(session, actor="me")
        finish.set()
    (task,) = await house.sessions.tasks(session)
    assert task.status == "CANCELLED"
    assert task.result is None
    assert (await house.sessions.get(session)).status == "CANCELLED"


async def test_a_paused_session_ends_what_runs_and_starts_nothing_new(house: House) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def slow(_ctx: object) -> str:
        started.set()
        await finish.wait()
        return "done"

    async with working(house.dsn, one_step(slow)):
        session = await house.begin("one")
        await asyncio.wait_for(started.wait(), 5)
        await house.sessions.pause(session, actor="me")
        finish.set()
        async with asyncio.timeout(5):
            while len(tasks := await house.sessions.tasks(session)) < 2:
                await asyncio.sleep(0.005)
        assert tasks[0].status == "COMPLETED"
        assert tasks[1].awaiting
        await house.sessions.resume(session, actor="me")
        await house.until(session)

"""Calls that outlive their step, and answers that took a repair turn: neither is paid for twice."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ekiden import Context
from ekiden.core.model import Options
from ekiden.errors import ModelUnavailable, NotNow, StepError
from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said, ScriptedProvider, Streamed
from tests.worker.relay import QUICK, House, Word, one_step, working
from tests.worker.streaming import ledger, until

GOOD = '{"word": "sash"}'
BAD = '{"word": 7}'


def asked(provider: ScriptedProvider) -> list[str]:
    return [entry.request.messages[-1].content for entry in provider.log]


class Uneven:
    """Fails one question at once, the first time; answers the others when it is let."""

    def __init__(self, error: StepError, said: str = "said") -> None:
        self.let = asyncio.Event()
        self._said = said
        self._errors = [error]

    async def __call__(self, request: ModelRequest) -> Said:
        if request.messages[-1].content == "fails" and self._errors:
            return self._errors.pop()
        await self.let.wait()
        return self._said


async def side_by_side(ctx: Context) -> list[str]:
    return list(await asyncio.gather(*(ctx.ask(q, str) for q in ("slow", "fails", "slower"))))


# -- calls that outlive their step ------------------------------------------------------------


@pytest.mark.parametrize("error", [ModelUnavailable("down"), NotNow("later", retry_after=0.01)])
async def test_what_was_asked_beside_a_call_that_fails_is_not_asked_again(
    house: House, error: StepError
) -> None:
    script = Uneven(error)
    provider = ScriptedProvider(script)
    async with working(house.dsn, one_step(side_by_side), provider=provider):
        session = await house.begin("one", QUICK)
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await asyncio.sleep(0.3)  # time enough for a second attempt that does not wait
        script.let.set()
        await house.until(session)
    assert sorted(asked(provider)) == ["fails", "fails", "slow", "slower"]


async def test_what_does_not_end_in_the_time_of_the_step_is_stopped_and_noted(
    house: House,
) -> None:
    provider = ScriptedProvider(Uneven(ModelUnavailable("down")))
    options = Options(max_retries=0, timeout=timedelta(milliseconds=300))
    async with working(house.dsn, one_step(side_by_side), provider=provider):
        progress = await house.until(await house.begin("one", options), "FAILED")
    assert progress["error"]["kind"] == "ModelUnavailable"
    assert sorted(row[2] for row in await ledger(house)) == ["ABORTED", "ABORTED", "FAILED"]


async def test_a_call_that_a_step_leaves_behind_is_seen_to_its_end(house: House) -> None:
    provider = ScriptedProvider(lambda _r: "said", gate=asyncio.Event())
    left: list[asyncio.Task[str]] = []

    async def leaves(ctx: Context) -> str:
        left.append(asyncio.create_task(ctx.ask("slow", str)))
        await provider.arrived.wait()
        return "done"

    async with working(house.dsn, one_step(leaves), provider=provider):
        session = await house.begin("one")
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await asyncio.sleep(0.2)
        assert (await house.sessions.progress(session))["status"] == "RUNNING"
        assert provider.gate is not None
        provider.gate.set()
        await house.until(session)
        assert [row[2] for row in await ledger(house)] == ["ANSWERED"]
    assert await left[0] == "said"


async def test_stopping_a_step_stops_what_it_left_behind(house: House) -> None:
    provider = ScriptedProvider(lambda _r: "said", gate=asyncio.Event())
    left: list[asyncio.Task[str]] = []

    async def leaves(ctx: Context) -> str:
        left.append(asyncio.create_task(ctx.ask("slow", str)))
        await asyncio.Event().wait()
        return "never"

    async with working(house.dsn, one_step(leaves), provider=provider):
        session = await house.begin("one")
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await house.sessions.cancel(session, actor="me")
        rows = await until(lambda: ledger(house))
        assert [row[2] for row in rows] == ["ABORTED"]


async def test_a_step_that_is_over_begins_no_repair_turn(house: House) -> None:
    script = Uneven(ModelUnavailable("down"), said=BAD)
    provider = ScriptedProvider(script)

    async def two(ctx: Context) -> list[str]:
        answers = (ctx.ask("fails", Word), ctx.ask("slow", Word))
        return [answer.word for answer in await asyncio.gather(*answers)]

    async with working(house.dsn, one_step(two), provider=provider):
        session = await house.begin("one", Options(max_retries=0))
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await asyncio.sleep(0.1)
        script.let.set()
        await house.until(session, "FAILED")
        await asyncio.sleep(0.1)
    assert sorted(asked(provider)) == ["fails", "slow"]
    assert sorted(row[2] for row in await ledger(house)) == ["FAILED", "INVALID"]


# -- answers that took a repair turn ----------------------------------------------------------


class Asking:
    """A step that asks once, and then has bad luck as often as it is told."""

    def __init__(self, *, bad_luck: int = 1, repairs: int = 2, **more: Any) -> None:
        self._bad_luck = bad_luck
        self._more = {**more, "repairs": repairs}

    async def __call__(self, ctx: Context) -> str:
        answer = await ctx.ask("first", Word, **self._more)
        if ctx.attempt <= self._bad_luck:
            raise ModelUnavailable("bad luck")
        return answer.word


@pytest.mark.parametrize("said", [[BAD, GOOD], [BAD, '{"word": 8}', GOOD], [BAD, BAD, GOOD]])
async def test_an_answer_that_took_repair_turns_is_taken_from_the_ledger(
    house: House, said: list[str]
) -> None:
    provider = ScriptedProvider(said)
    async with working(house.dsn, one_step(Asking(bad_luck=2)), provider=provider):
        await house.until(await house.begin("one", QUICK))
    assert len(provider.log) == len(said)


async def test_equal_questions_that_were_repaired_have_an_answer_each(house: House) -> None:
    """One was of use at once, the other after a repair turn: each answer is taken once."""
    provider = ScriptedProvider([BAD, GOOD, '{"word": "zone"}'])

    async def twice(ctx: Context) -> list[str]:
        words = [(await ctx.ask("first", Word)).word for _ in range(2)]
        if ctx.attempt == 1:
            raise ModelUnavailable("bad luck")
        return sorted(words)

    async with working(house.dsn, one_step(twice), provider=provider):
        session = await house.begin("one", QUICK)
        await house.until(session)
    assert len(provider.log) == 3
    assert (await house.sessions.tasks(session))[0].result == ["sash", "zone"]


async def test_a_question_whose_answers_were_all_useless_is_asked_anew(house: House) -> None:
    provider = ScriptedProvider([BAD, BAD, BAD, GOOD])
    async with working(house.dsn, one_step(Asking(bad_luck=0)), provider=provider):
        await house.until(await house.begin("one", QUICK))
    assert len(provider.log) == 4
    assert len(provider.log[3].request.messages) == 1


async def test_the_answer_to_a_repair_turn_is_fetched_where_the_provider_keeps_it(
    house: House,
) -> None:
    cut = Streamed(pieces=("{",), then=ModelUnavailable("cut"), answer_id="a-1")
    provider = ScriptedProvider([BAD, cut])
    provider.stored["a-1"] = GOOD
    async with working(house.dsn, one_step(Asking(bad_luck=0)), provider=provider):
        await house.until(await house.begin("one", QUICK))
    assert (len(provider.log), provider.fetched) == (2, ["a-1"])


async def test_an_answer_to_which_todays_check_has_no_objection_is_taken(house: House) -> None:
    strict = [True]

    def check(_word: Word) -> str | None:
        return "not that" if strict else None

    provider = ScriptedProvider([json.dumps({"word": "sash"})])
    step = Asking(bad_luck=0, repairs=0, check=check)
    async with working(house.dsn, one_step(step), provider=provider):
        session = await house.begin("one", replace(QUICK, max_retries=0))
        await house.until(session, "FAILED")
        strict.clear()
        await house.sessions.resume(session, actor="me")
        await house.until(session)
    assert len(provider.log) == 1

"""Calls that outlive their step are not paid for twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ekiden import Context
from ekiden.core.model import Options
from ekiden.errors import ModelUnavailable, NotNow, StepError
from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said, ScriptedProvider
from tests.worker.relay import QUICK, House, Word, one_step, working
from tests.worker.streaming import ledger, until

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

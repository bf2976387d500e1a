"""What flow authors test their steps with."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from ekiden import Context, Phase
from ekiden.errors import AnswerInvalid, ModelUnavailable
from ekiden.testing import FakeContext, FakeFeedback, Source


class Plan(BaseModel):
    words: list[str]


class Think(Phase):
    """Think"""

    async def think(self, ctx: Context) -> Plan:
        found = await ctx.search("relay", limit=1)
        return await ctx.ask(
            f"Words of {found[0].title}",
            Plan,
            check=lambda plan: None if plan.words else "no words",
        )

    async def integrate(self, ctx: Context, plan: Plan) -> Plan:
        return plan


def think(ctx: FakeContext) -> Plan:
    return asyncio.run(Think().think(ctx))


SOURCES = [Source(title=t, url="file:///x", snippet="x", origin="test") for t in "ab"]
GOOD, EMPTY = Plan(words=["sash"]), Plan(words=[])


def test_a_step_gets_what_it_is_given_and_what_it_asked_for_is_kept():
    ctx = FakeContext(answers=[GOOD], sources=SOURCES)
    assert think(ctx) == GOOD
    assert (ctx.searched, ctx.asked) == (["relay"], ["Words of a"])


def test_a_complaint_takes_a_repair_turn_and_then_it_is_invalid():
    assert think(FakeContext(answers=[EMPTY, GOOD], sources=SOURCES)) == GOOD
    with pytest.raises(AnswerInvalid, match="no words"):
        think(FakeContext(answers=[EMPTY, EMPTY, GOOD], sources=SOURCES))


def test_an_exception_among_the_answers_is_raised():
    with pytest.raises(ModelUnavailable, match="down"):
        think(FakeContext(answers=[ModelUnavailable("down")], sources=SOURCES))


def test_what_was_not_given_is_said():
    with pytest.raises(AssertionError, match="asks once more than there are answers: Words of a"):
        think(FakeContext(sources=SOURCES))
    with pytest.raises(AssertionError, match="asks for Plan, and the next answer is 'sash'"):
        think(FakeContext(answers=["sash"], sources=SOURCES))
    with pytest.raises(AssertionError, match="reads the output of Think"):
        FakeContext().output(Think)


def test_the_rest_is_handed_on():
    ctx = FakeContext(attempt=2, feedback=FakeFeedback("shorter", GOOD), variables={"tone": "dry"})
    assert ctx.feedback is not None
    assert (ctx.attempt, ctx.feedback.note, ctx.feedback.previous) == (2, "shorter", GOOD)
    assert ctx.variables == {"tone": "dry"}

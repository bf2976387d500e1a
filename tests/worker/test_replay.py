"""A recorded session, run again in memory: what is the same, and what each change would do."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from dataclasses import replace
from typing import Any

import pytest

from ekiden import Context, Flow, Phase
from ekiden.core import recording as files
from ekiden.core.recording import Recording
from ekiden.errors import ModelUnavailable
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import Answer, RawAnswer
from ekiden.search.protocol import Source
from ekiden.worker.replay import Replayed, Verdict, replay
from tests.scripted import ScriptedProvider
from tests.worker.relay import QUICK, Count, House, Word, working

_READER = ScriptedProvider([])


def read(_provider: str, _model: str, raw: RawAnswer) -> Answer:
    return _READER.read(raw)


class Library:
    name = "library (3)"

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        return [Source(title=query, url="file:///x", snippet=query, origin="library")]


class Then(Phase):
    """Then"""

    async def think(self, ctx: Context) -> list[str]:
        return ["a", "b"]

    def each(self, plan: list[str]) -> list[str]:
        return plan

    async def execute(self, ctx: Context, item: str) -> str:
        (source,) = await ctx.search(item)
        if ctx.attempt == 1 and item == "b":
            raise ModelUnavailable("bad luck")
        return (await ctx.ask(f"first {source.title}", Word)).word

    async def integrate(self, ctx: Context, plan: list[str], found: list[str]) -> list[str]:
        return found


def flow(phase: type[Phase], **changes: Any) -> CompiledFlow:
    changed = type(phase.__name__, (phase,), {"__doc__": "Changed", **changes})
    return CompiledFlow(Flow("then", input=Count, phases=[changed]))


async def recorded(
    house: House, *answers: Any, status: str = "COMPLETED", **changes: Any
) -> Recording:
    provider = ScriptedProvider(answers)
    then = flow(Then, **changes)
    async with working(house.dsn, then, provider=provider, search=Library(), capacity=1):
        session = await house.begin("then", replace(QUICK, max_retries=1))
        await house.until(session, status)
    rows = await house.sessions.recordings.take(session)
    assert files.read(files.write(rows)) == rows
    return Recording.of(rows)


@pytest.fixture
async def then(house: House, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """A session with a retry and a repaired answer; from here on the network is off."""
    made = await recorded(house, '{"wrong": 1}', '{"word": "one"}', '{"word": "two"}')
    switch_off(monkeypatch)
    return made


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network is off")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)


async def again(recording: Recording, **changes: Any) -> dict[tuple[str, int], Replayed]:
    found = await replay(recording, flow(Then, **changes), read)
    return {(r.step, r.item): r for r in found}


async def test_the_same_code_says_the_same(then: Recording):
    found = await again(then)
    assert {key: r.verdicts for key, r in found.items()} == {
        (step, item): [Verdict.SAME]
        for step, item in (("THINK", 0), ("EXECUTE", 0), ("EXECUTE", 1), ("INTEGRATE", 0))
    }
    # A search, an answer of no use and its repair; and of the retried item a search that the first
    # attempt had paid for, and an answer.
    assert (found["EXECUTE", 0].calls, found["EXECUTE", 1].calls) == (3, 2)


async def test_a_step_that_took_a_repaired_answer_of_an_earlier_attempt_says_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    async def unlucky(self: Any, ctx: Context, item: str) -> str:
        word = (await ctx.ask(f"first {item}", Word)).word
        if ctx.attempt == 1:
            raise ModelUnavailable("bad luck")
        return word

    said = '{"wrong": 1}', '{"word": "one"}', '{"word": "two"}'
    made = await recorded(house, *said, execute=unlucky)
    switch_off(monkeypatch)
    found = await again(made, execute=unlucky)
    assert {key: r.verdicts for key, r in found.items() if r.differs} == {}
    assert (found["EXECUTE", 0].calls, found["EXECUTE", 1].calls) == (2, 1)


async def test_a_changed_prompt_is_shown_beside_the_one_that_was_asked(then: Recording):
    async def execute(self: Any, ctx: Context, item: str) -> str:
        (source,) = await ctx.search(item)
        return (await ctx.ask(f"second {source.title}", Word)).word

    found = await again(then, execute=execute)
    changed = found["EXECUTE", 0]
    assert changed.verdicts == [Verdict.ASKS]
    assert any(line.startswith("-") and "first a" in line for line in changed.details)
    assert any(line.startswith("+") and "second a" in line for line in changed.details)
    assert not found["INTEGRATE", 0].differs  # it runs on what is stored


async def test_another_search_fewer_calls_and_one_more_are_told_apart(then: Recording):
    async def elsewhere(self: Any, ctx: Context, item: str) -> str:
        await ctx.search(item * 2)
        return "x"

    async def fewer(self: Any, ctx: Context, item: str) -> str:
        return {"a": "one", "b": "two"}[item]

    async def more(self: Any, ctx: Context, item: str) -> str:
        word = await Then.execute(self, ctx, item)
        await ctx.ask("and more", Word)
        return word

    assert (await again(then, execute=elsewhere))["EXECUTE", 0].verdicts == [Verdict.ASKS]
    assert (await again(then, execute=fewer))["EXECUTE", 0].verdicts == [Verdict.UNASKED]
    found = (await again(then, execute=more))["EXECUTE", 1]
    assert found.verdicts == [Verdict.ASKS]
    assert "once more" in found.details[0]


async def test_another_result_other_items_and_an_error_are_told_apart(then: Recording):
    async def integrate(self: Any, ctx: Context, plan: list[str], found: list[str]) -> list[str]:
        return [*found, "more"]

    async def think(self: Any, ctx: Context) -> list[str]:
        return ["a", "b"]

    def each(self: Any, plan: list[str]) -> list[str]:
        return plan[:1]

    async def broken(self: Any, ctx: Context) -> list[str]:
        raise ZeroDivisionError("oh")

    assert (await again(then, integrate=integrate))["INTEGRATE", 0].verdicts == [Verdict.RESULT]
    assert (await again(then, think=think, each=each))["THINK", 0].verdicts == [Verdict.ITEMS]
    raised = (await again(then, think=broken))["THINK", 0]
    assert (raised.verdicts, raised.details) == ([Verdict.RAISES], ["ZeroDivisionError: oh"])


async def test_a_step_that_is_gone_is_said_to_be(then: Recording):
    class Short(Phase):
        """Short"""

        async def think(self, ctx: Context) -> list[str]:
            return ["a", "b"]

        async def integrate(self, ctx: Context, plan: list[str]) -> list[str]:
            return ["one", "two"]

    short = CompiledFlow(Flow("then", input=Count, phases=[Short]))
    found = await replay(then, short, read)
    assert [r.verdicts for r in found if r.step == "EXECUTE"] == [[Verdict.GONE]] * 2


async def test_a_failed_session_fails_the_same_way_or_no_longer(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    useless = ['{"wrong": 1}'] * 4
    made = await recorded(house, *useless, status="FAILED")
    switch_off(monkeypatch)
    found = await again(made)
    assert found["EXECUTE", 0].verdicts == [Verdict.SAME]
    assert found["THINK", 0].verdicts == [Verdict.SAME]
    assert ("INTEGRATE", 0) not in found  # it never came to that

    async def healed(self: Any, ctx: Context, item: str) -> str:
        (source,) = await ctx.search(item)
        try:
            return (await ctx.ask(f"first {source.title}", Word)).word
        except ModelUnavailable:
            return "none"
        except Exception:  # noqa: BLE001 - the point of the change
            return "useless"

    assert (await again(made, execute=healed))["EXECUTE", 0].verdicts == [Verdict.HEALS]


async def test_a_recording_keeps_every_byte(then: Recording, house: House):
    for call in then.calls:
        assert hashlib.sha256(call.request).hexdigest() == call.request_hash
    assert {c.answer for c in then.calls if c.kind == "ask"} == {
        b'{"wrong": 1}', b'{"word": "one"}', b'{"word": "two"}',
    }  # fmt: skip

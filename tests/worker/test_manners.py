"""Providers over real sockets, in a real worker on a real database: what a session sees of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ekiden import Context, Flow, Phase
from ekiden.core.model import Options
from ekiden.errors import SearchError
from ekiden.flows.registry import CompiledFlow
from ekiden.providers import breaker
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.manners import Manners
from ekiden.providers.models_by_place import Models
from ekiden.search.polite import PoliteSearch
from ekiden.search.protocol import Source
from tests.providers.fake_server import FakeServer, Received, Reply, answer, then_silence
from tests.providers.wires import OPENAI, WIRES, Wire, in_turn
from tests.scripted import ScriptedProvider
from tests.worker.relay import Count, House, asks, one_step, working
from tests.worker.streaming import says, until

PATIENT = Options(retry_delay=timedelta(milliseconds=10))


@pytest.fixture
async def remote() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


def word(wire: Wire, text: str = "sash", finish: str = "stop") -> Reply:
    return wire.says(json.dumps({"word": text}), finish)


async def calls(house: House) -> list[dict[str, Any]]:
    rows = await house.pool.fetch(
        "SELECT provider, model, attempt, outcome, finish_reason, input_tokens, output_tokens,"
        " cost_usd, price_version, citations::text AS citations, request_id, first_token,"
        " finished_at - started_at AS took FROM ekiden.calls ORDER BY id"
    )
    return [dict(row) for row in rows]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.label)
async def test_the_same_session_on_each_wire_format(house: House, remote: FakeServer, wire: Wire):
    remote.answering = lambda received: word(wire, f"w{len(remote.requests)}")
    models = Models(wire.provider(remote))
    async with working(house.dsn, asks(), models=models):
        session = await house.begin("asks")
        await house.until(session)
    assert await house.steps(session) == [
        (1, "THINK", 0, "COMPLETED", 1),
        (1, "INTEGRATE", 0, "COMPLETED", 1),
    ]
    made = await calls(house)
    assert len(made) == 3
    for call in made:
        assert (call["provider"], call["model"]) == (wire.name, wire.model)
        assert (call["outcome"], call["finish_reason"]) == ("ANSWERED", "stop")
        assert (call["input_tokens"], call["output_tokens"]) == (120, 30)
        # A price list knows its providers by their addresses, and this remote is none of them.
        stated = (Decimal(str(wire.cost)), "stated by the provider") if wire.cost else (None, None)
        assert (call["cost_usd"], call["price_version"]) == stated
        cited = json.loads(call["citations"])[0]["url"] if call["citations"] else None
        assert cited == ("https://example.org/ekiden" if wire.cites else None)
        assert timedelta(0) < call["first_token"] <= call["took"]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.label)
async def test_one_repair_turn_shows_the_model_its_error_then_the_step_fails(
    house: House, remote: FakeServer, wire: Wire
):
    remote.answering = in_turn(wire.says('{"wrong": 1}'), word(wire, "mended"), word(wire, "more"))
    async with working(house.dsn, asks(), models=Models(wire.provider(remote))):
        session = await house.begin("asks")
        await house.until(session)
        body = remote.requests[1].json
        shown = body.get("messages") or body["input"]
        assert [turn["role"] for turn in shown][-3:] == ["user", "assistant", "user"]
        assert shown[-2]["content"] == '{"wrong": 1}'
        assert "word: Field required" in shown[-1]["content"]
        remote.answering = in_turn(wire.says("never JSON"))
        before = len(remote.requests)
        session = await house.begin("asks", Options(max_retries=0))
        failed = await house.until(session, "FAILED")
    assert len(remote.requests) - before == 2
    assert "never JSON" in failed["error"]["message"]


# What is asked in the background goes on: see test_background.
FOREGROUND = [wire for wire in WIRES if not wire.background]


@pytest.mark.parametrize("wire", FOREGROUND, ids=lambda wire: wire.label)
async def test_kill_9_in_mid_stream_keeps_what_was_said_and_the_session_ends_all_the_same(
    house: House, remote: FakeServer, wire: Wire
):
    whole = wire.stream("The sash is handed over in the zone.", "stop")
    half = whole[: whole.index(b"over in the zone")]
    half = half[: half.rindex(b"\n\n") + 2]
    remote.answering = in_turn(then_silence(half), wire.says("In the zone."))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.worker.wire_child"),
        *(house.dsn, str(WIRES.index(wire)), str(remote.port)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not await house.pool.fetchval("SELECT count(*) FROM ekiden.flows"):
                await asyncio.sleep(0.02)
            session = await house.begin("one")
            while not await house.pool.fetchval("SELECT count(*) FROM ekiden.partials"):
                await asyncio.sleep(0.02)
    finally:
        child.kill()
        await child.wait()
    async with working(house.dsn, says(), models=Models(wire.provider(remote))):
        await house.until(session)
    kept = await house.pool.fetchval("SELECT text FROM ekiden.partials WHERE attempt = 1")
    assert kept
    assert "The sash is handed over in the zone.".startswith(kept)
    [answered] = [call for call in await calls(house) if call["outcome"] == "ANSWERED"]
    assert (answered["provider"], answered["attempt"], answered["finish_reason"]) == (
        wire.name,
        2,
        "stop",
    )
    assert len(remote.requests) == 2


@pytest.mark.alone
async def test_retry_after_is_honoured_and_nobody_else_asks_meanwhile(
    house: House, remote: FakeServer
):
    """https://platform.openai.com/docs/guides/rate-limits, RFC 9110 §10.2.3"""
    times: list[float] = []

    def answering(_received: Received) -> Reply:
        times.append(time.monotonic())
        if len(times) == 1:
            return answer(b"{}", status=429, headers={"Retry-After": "2"})
        return word(OPENAI)

    remote.answering = answering
    async with working(house.dsn, asks(), models=Models(OPENAI.provider(remote))):
        session = await house.begin("asks", PATIENT)
        while not times:
            await asyncio.sleep(0.01)
        other = await house.begin("asks", PATIENT)  # parked without a call of its own
        await house.until(session)
        await house.until(other)
    assert 2 <= times[1] - times[0] < 3
    assert len(times) == 7
    assert await house.outcomes(other, (await house.sessions.tasks(other))[0].id) == [
        "RELEASED",
        "COMPLETED",
    ]


async def test_who_is_told_to_come_back_at_once_may_not_do_so_for_ever(
    house: House, remote: FakeServer
):
    remote.reply = answer(b"{}", status=429, headers={"Retry-After": "0"})
    async with working(house.dsn, asks(), models=Models(OPENAI.provider(remote))):
        session = await house.begin("asks", replace(PATIENT, max_retries=2))
        await house.until(session, "FAILED")
    assert len(remote.requests) == 3


async def test_who_is_told_to_wait_for_a_day_asks_again_in_an_hour(
    house: House, remote: FakeServer
):
    remote.reply = answer(b"{}", status=429, headers={"Retry-After": "86400"})
    async with working(house.dsn, asks(), models=Models(OPENAI.provider(remote))):
        session = await house.begin("asks", PATIENT)
        due = await until(lambda: retry_in(house))
        assert 3000 < due <= 3600
        assert (await house.sessions.progress(session))["status"] == "RUNNING"


async def retry_in(house: House) -> float | None:
    """The seconds until the task that was given back is due."""
    found = await house.pool.fetchval(
        "SELECT extract(epoch FROM available_at - ekiden.now()) FROM ekiden.api_tasks"
        " WHERE queued AND budget_from > 0"
    )
    return None if found is None else float(found)


async def test_a_server_that_bears_four_at_once_is_soon_asked_four_at_once(
    house: House, remote: FakeServer
):
    """It tells no limits, only 429 with Retry-After."""
    now = refused = 0

    def answering(_received: Received) -> Reply:
        async def reply(writer: asyncio.StreamWriter) -> None:
            nonlocal now, refused
            if now >= 4:
                refused += 1
                await answer(b"{}", status=429, headers={"Retry-After": "1"})(writer)
                return
            now += 1
            await asyncio.sleep(0.05)
            now -= 1
            await word(OPENAI)(writer)

        return reply

    remote.answering = answering
    async with working(house.dsn, asks(), models=Models(OPENAI.provider(remote)), capacity=32):
        begun = [await house.begin("asks", PATIENT) for _ in range(30)]
        for session in begun:
            await house.until(session)
    assert refused < 60, refused  # the first round alone is refused 26 times


def probes(seconds: float) -> int:
    """How often a breaker that opened at once may probe in a storm of this length."""
    count, at, period = 0, 0.0, breaker.SHORTEST
    while at + period < seconds:
        count, at, period = count + 1, at + period, min(period * 2, breaker.LONGEST)
    return count


async def storm(house: House, remote: FakeServer, seconds: float) -> dict[str, float]:
    """Let 20 sessions meet a server that fails for so long; return what came of it."""
    sessions, capacity = 20, 8
    at: list[float] = []
    over = time.monotonic() + seconds

    def answering(_received: Received) -> Reply:
        at.append(time.monotonic())
        down = time.monotonic() < over
        return answer(b"{}", status=500) if down else word(OPENAI)

    remote.answering = answering
    async with working(
        house.dsn, asks(), models=Models(OPENAI.provider(remote)), capacity=capacity
    ):
        begun = [await house.begin("asks", PATIENT) for _ in range(sessions)]
        async with asyncio.timeout(seconds + 40):
            while await house.pool.fetchval(
                "SELECT count(*) FROM ekiden.sessions WHERE status = 'RUNNING'"
            ):
                await asyncio.sleep(0.1)
        ended = time.monotonic()
    states = [(await house.sessions.progress(session))["status"] for session in begun]
    in_storm = [moment for moment in at if moment < over]
    counted = await house.pool.fetchval(
        "SELECT max(attempt - budget_from) FROM ekiden.api_tasks WHERE status = 'COMPLETED'"
    )
    return {
        "calls made in the storm": len(in_storm),
        # What began before it opened: the failures that opened it but the last, and a full worker.
        "allowed": breaker.FAILURES - 1 + capacity + probes(seconds),
        "calls made afterwards": len(at) - len(in_storm),
        "needed": sessions * 3,
        "sessions lost": sum(status != "COMPLETED" for status in states),
        "tries of a task that counted, at most": counted,
        "seconds from its end to the first answer": round(
            next(moment for moment in at if moment >= over) - over, 2
        ),
        "seconds from its end to the last session's": round(ended - over, 2),
    }


def judge(came: dict[str, float]) -> None:
    assert came["calls made in the storm"] <= 1.1 * came["allowed"], came
    assert came["calls made afterwards"] == came["needed"], came  # what was answered is not asked
    assert came["sessions lost"] == 0, came
    # What was parked did not count.
    assert came["tries of a task that counted, at most"] <= PATIENT.max_retries, came


async def test_a_storm_of_500s_is_knocked_at_rarely_and_loses_no_task(
    house: House, remote: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ekiden.providers.breaker.SHORTEST", 0.2)
    monkeypatch.setattr("ekiden.providers.breaker.LONGEST", 0.8)
    judge(await storm(house, remote, 6))


@pytest.mark.storm
async def test_a_storm_of_a_minute_on_a_real_clock(house: House, remote: FakeServer):
    """pytest -m storm -s tests/worker/test_manners.py"""
    came = await storm(house, remote, 60)
    figures = (f"{figure:g}  {what}\n" for what, figure in came.items())
    sys.stdout.write("\n" + "".join(figures))
    judge(came)


async def test_a_fallback_answers_while_the_model_of_the_step_is_down(
    house: House, remote: FakeServer
):
    remote.reply = answer(b"{}", status=500)
    fallback = ScriptedProvider(lambda _request: '{"word": "instead"}', model="fallback-1")
    models = Models(
        OPENAI.provider(remote), build=lambda _name: fallback, fallback="scripted:fallback-1"
    )
    async with working(house.dsn, asks(), models=models):
        session = await house.begin("asks", PATIENT)
        await house.until(session)
    made = await calls(house)
    answered = [call for call in made if call["outcome"] == "ANSWERED"]
    assert {(call["provider"], call["model"]) for call in answered} == {("scripted", "fallback-1")}
    assert {call["provider"] for call in made if call["outcome"] == "FAILED"} == {"openai"}
    assert all(status == "COMPLETED" and attempt == 1
               for _, _, _, status, attempt in await house.steps(session))  # fmt: skip


async def test_each_step_asks_the_model_of_its_place(house: House):
    named = {
        name: ScriptedProvider(lambda _r, n=name: json.dumps({"word": n}), model=name)
        for name in ("default", "think", "wanted")
    }
    models = Models(
        named["default"],
        build=lambda chosen: named[chosen.partition(":")[2]],
        places={"ASKS_1_THINK": "scripted:think"},
    )
    async with working(house.dsn, asks(), models=models):
        session = await house.begin("asks")
        await house.until(session)
    assert [len(provider.log) for provider in named.values()] == [2, 1, 0]


async def test_a_model_that_is_not_set_up_fails_the_step_at_once_and_says_what_to_set(
    house: House,
):
    catalog = Catalog(ProviderSettings(home=Path("/nowhere")))
    models = Models(
        ScriptedProvider([]), build=catalog.get, places={"ASKS": "anthropic:claude-haiku-4-5"}
    )
    async with working(house.dsn, asks(), models=models):
        session = await house.begin("asks")
        failed = await house.until(session, "FAILED")
    assert "ANTHROPIC_API_KEY" in failed["error"]["message"]


class Slow:
    """A search engine that takes its time, and counts how many ask it at once."""

    name = "slow"
    paid = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = self.most = self.asked = 0

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        return [Source(title=query, url="https://example.org", snippet="", origin="slow")]


class Searches(Phase):
    """Search two hundred times"""

    async def think(self, ctx: Context) -> list[str]:
        return [f"query {number}" for number in range(200)]

    def each(self, plan: list[str]) -> list[str]:
        return plan

    async def execute(self, ctx: Context, query: str) -> str:
        return (await ctx.search(query))[0].title

    async def integrate(self, ctx: Context, plan: list[str], found: list[str]) -> int:
        return len(set(found))


@pytest.mark.alone
async def test_200_searches_keep_to_a_cap_of_10_and_delay_nobody_else(house: House):
    engine = Slow(0.2)
    polite = PoliteSearch(engine, Manners("slow", at_once=10))
    searches = CompiledFlow(Flow("searches", input=Count, phases=[Searches]))

    async def ask(ctx: Any) -> str:
        return str(await ctx.ask("quick", str))

    quick = one_step(ask, "quick")
    provider = ScriptedProvider(lambda _request: "done")
    async with working(house.dsn, searches, quick, search=polite, provider=provider, capacity=32):
        slow = await house.begin("searches")
        while engine.asked < 10:
            await asyncio.sleep(0.01)
        took = []
        for _ in range(5):
            begun = time.monotonic()
            session = await house.begin("quick")
            await house.until(session)
            took.append(time.monotonic() - begun)
        await house.until(slow)
    assert engine.most == 10
    assert engine.asked == 200
    assert max(took) < 2.5  # not the four seconds that the searches take together


async def test_an_engine_that_fails_is_parked_like_a_model(house: House):
    class Down(Slow):
        async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
            self.asked += 1
            if self.asked <= 6:
                raise SearchError("down")
            return await super().search(query)

    async def look(ctx: Any) -> str:
        return (await ctx.search("q"))[0].title

    engine = Down(0)
    polite = PoliteSearch(engine, Manners("down"))
    async with working(house.dsn, one_step(look), search=polite):
        begun = [await house.begin("one", PATIENT) for _ in range(3)]
        for session in begun:
            await house.until(session)

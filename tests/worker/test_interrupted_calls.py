"""Nothing that was asked is forgotten: stopped calls, late answers, answers the provider keeps."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from ekiden.core.model import Options
from ekiden.errors import ModelUnavailable
from ekiden.providers.protocol import ModelRequest, Usage
from ekiden.store.workers import Workers
from ekiden.worker.worker import Worker
from tests.scripted import Said, ScriptedProvider, Streamed
from tests.worker.relay import QUICK, House, asks, working
from tests.worker.streaming import PIECES, TEXT, are, half, ledger, only_task, says, texts, until

# -- when its step is stopped -----------------------------------------------------------------


async def asked(house: House, provider: ScriptedProvider) -> tuple[str, asyncio.Task[None]]:
    """Let a worker of its own ask; return the session and the worker's run."""
    worker = Worker(lambda: house.dsn, [says()], provider=provider)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.ready.wait(), 10)
    session = await house.begin("one")
    await asyncio.wait_for(provider.arrived.wait(), 10)
    return session, running


async def stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def stopped_in_mid_stream(house: House, said: Streamed) -> str:
    """Cancel a worker while an answer streams; return the session."""
    session, running = await asked(house, ScriptedProvider(lambda _r: said))
    await stop(running)
    return session


async def test_a_call_that_is_stopped_is_in_the_ledger_with_what_is_known(house: House) -> None:
    session = await stopped_in_mid_stream(
        house, Streamed(pieces=PIECES[:1], then=asyncio.Event(), usage=Usage(input_tokens=7))
    )
    assert await ledger(house) == [(1, 1, "ABORTED", None, 7, None)]
    (line,) = await house.sessions.calls(session, await only_task(house, session))
    assert (line.provider, line.model, line.cost_usd) == ("scripted", "scripted-1", None)
    assert line.finished_at > line.started_at
    (said,) = await texts(house, session)
    assert said.text == PIECES[0]
    progress = await house.sessions.progress(session)
    assert progress["usage"]["calls"] == 1
    assert progress["usage"]["models"] == []
    assert progress["cost"] == {"usd": None, "callsWithoutPrice": 1}


async def test_a_call_whose_usage_nobody_told_has_none_and_not_zero(house: House) -> None:
    await stopped_in_mid_stream(house, Streamed(pieces=PIECES[:1], then=asyncio.Event()))
    assert await ledger(house) == [(1, 1, "ABORTED", None, None, None)]


async def test_a_step_that_runs_out_of_time_leaves_its_call_in_the_ledger(house: House) -> None:
    provider = ScriptedProvider(half)
    options = Options(max_retries=0, timeout=timedelta(milliseconds=100))
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", options)
        progress = await house.until(session, "FAILED")
        assert progress["error"]["kind"] == "StepTimeout"
        assert await ledger(house) == [(1, 1, "ABORTED", None, None, None)]


async def test_cancelling_a_session_stops_its_call_and_notes_it(house: House) -> None:
    provider = ScriptedProvider(half)
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one")
        await until(lambda: texts(house, session))
        await house.sessions.cancel(session, actor="me")
        rows = await until(lambda: ledger(house))
        assert [row[:4] for row in rows] == [(1, 1, "ABORTED", None)]


async def test_an_aborted_call_is_not_replayed(house: House) -> None:
    session = await stopped_in_mid_stream(house, Streamed(pieces=PIECES[:1], then=asyncio.Event()))
    provider = ScriptedProvider([TEXT])
    async with working(house.dsn, says(), provider=provider):
        await house.until(session)
    assert len(provider.log) == 1
    assert [row[:3] for row in await ledger(house)] == [(1, 1, "ABORTED"), (2, 1, "ANSWERED")]


async def test_an_answer_that_has_come_when_its_step_is_stopped_is_kept_with_its_cost(
    house: House,
) -> None:
    comes = asyncio.Event()
    provider = ScriptedProvider([TEXT], gate=comes)
    session, running = await asked(house, provider)
    comes.set()
    while not provider.answered:
        await asyncio.sleep(0)  # to the very moment: it is here, and stored nowhere
    await stop(running)
    assert await ledger(house) == [(1, 1, "ANSWERED", TEXT.encode(), 10, 8)]
    again = ScriptedProvider([])
    async with working(house.dsn, says(), provider=again):
        await house.until(session)
    assert again.log == []


# -- when an attempt is over before its answer ------------------------------------------------


async def test_an_answer_that_comes_after_its_attempt_was_rescued_is_stored_and_replayed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No worker hears of its rescue: a host that was frozen goes on like this.
    monkeypatch.setattr(Worker, "_on_beat", lambda _worker, _beat: None)
    comes = asyncio.Event()
    provider = ScriptedProvider([TEXT], gate=comes)
    # One slot: the next attempt waits until this one has met its fence.
    async with working(house.dsn, says(), provider=provider, capacity=1) as worker:
        session = await house.begin("one")
        await asyncio.wait_for(provider.arrived.wait(), 10)
        await Workers(house.pool, house.dsn).rescue([worker.id], max_deaths=3)
        comes.set()
        rows = await until(lambda: ledger(house))
        assert [row[:3] for row in rows] == [(1, 1, "ANSWERED")]
        async with working(house.dsn, says(), provider=provider):
            await house.until(session)
    assert await house.outcomes(session, await only_task(house, session)) == ["LOST", "COMPLETED"]
    assert len(provider.log) == 1
    assert len(await ledger(house)) == 1


async def test_the_call_of_an_attempt_that_lost_its_task_may_end_and_is_kept(
    house: House,
) -> None:
    comes = asyncio.Event()
    provider = ScriptedProvider([TEXT, TEXT], gate=comes)
    async with working(house.dsn, says(), provider=provider, capacity=1) as worker:
        session = await house.begin("one")
        await asyncio.wait_for(provider.arrived.wait(), 10)
        first = worker.id
        await Workers(house.pool, house.dsn).rescue([worker.id], max_deaths=3)
        async with working(house.dsn, says(), provider=provider):
            await until(lambda: are(len(provider.log), 2))
            worker._heart.beat_now()
            await until(lambda: are(worker.id != first, True))
            comes.set()
            await house.until(session)
    assert (len(provider.log), len(provider.answered)) == (2, 2)
    rows = [row[:3] for row in await ledger(house)]
    assert sorted(rows) == [(1, 1, "ANSWERED"), (2, 1, "ANSWERED")]
    assert await house.outcomes(session, await only_task(house, session)) == ["LOST", "COMPLETED"]


# -- answers that the provider keeps ----------------------------------------------------------


async def test_a_cut_answer_is_fetched_before_anything_is_paid_again(house: House) -> None:
    cut = Streamed(
        pieces=PIECES[:1], then=ModelUnavailable("cut"), answer_id="a-1",
        usage=Usage(input_tokens=10, output_tokens=2, cost_usd=0.0005),
    )  # fmt: skip
    provider = ScriptedProvider([cut])
    provider.stored["a-1"] = TEXT
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", QUICK)
        await house.until(session)
    assert (len(provider.log), provider.fetched) == (1, ["a-1"])
    assert [row[:3] for row in await ledger(house)] == [(1, 1, "FAILED"), (1, 1, "ANSWERED")]
    # Asked once, paid once.
    progress = await house.sessions.progress(session)
    assert progress["usage"]["calls"] == 1
    assert progress["usage"]["inputTokens"] == 10
    assert progress["cost"] == {"usd": 0.001, "callsWithoutPrice": 0}


async def test_an_answer_that_the_provider_does_not_have_is_asked_for_anew(house: House) -> None:
    cut = Streamed(pieces=PIECES[:1], then=ModelUnavailable("cut"), answer_id="a-1")
    provider = ScriptedProvider([cut, TEXT])
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", QUICK)
        await house.until(session)
    assert (len(provider.log), provider.fetched) == (2, ["a-1"])


async def test_while_nobody_knows_whether_the_provider_has_it_nothing_is_paid(
    house: House,
) -> None:
    cut = Streamed(pieces=PIECES[:1], then=ModelUnavailable("cut"), answer_id="a-1")
    provider = ScriptedProvider([cut])
    provider.stored["a-1"] = ModelUnavailable("down")
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", Options(retry_delay=timedelta(0), max_retries=3))
        progress = await house.until(session, "FAILED")
        assert progress["error"]["attempt"] == 4
        assert (len(provider.log), provider.fetched) == (1, ["a-1"] * 3)
        provider.stored["a-1"] = TEXT
        await house.sessions.resume(session, actor="me")
        await house.until(session)
    assert len(provider.log) == 1


async def test_a_fetched_answer_that_is_of_no_use_gets_its_repair_turn(house: House) -> None:
    good = '{"word": "sash"}'
    cut = Streamed(pieces=("{",), then=ModelUnavailable("cut"), answer_id="a-1")
    provider = ScriptedProvider([cut, *[good] * 3])
    provider.stored["a-1"] = '{"word": 7}'
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks", QUICK)
        await house.until(session)
    assert "word: Input should be a valid string" in provider.log[1].request.messages[-1].content
    outcomes = [row[2] for row in await ledger(house)]
    assert outcomes == ["FAILED", "INVALID", "ANSWERED", "ANSWERED", "ANSWERED"]


async def test_an_answer_whose_cost_nobody_noted_has_it_noted_when_it_is_replayed(
    house: House,
) -> None:
    """Its worker died between storing it and reading it."""

    async def third_once(request: ModelRequest) -> Said:
        if request.messages[-1].content == "third" and len(provider.log) == 3:
            await house.pool.execute(
                "UPDATE ekiden.calls SET input_tokens = NULL, output_tokens = NULL, cost_usd = NULL"
                " WHERE request LIKE '%second%'::bytea"
            )
            raise ModelUnavailable("cut")
        return json.dumps({"word": request.messages[-1].content})

    provider = ScriptedProvider(third_once)
    async with working(house.dsn, asks(), provider=provider):
        session = await house.begin("asks", QUICK)
        progress = await house.until(session)
    assert len(provider.answered) == 3
    assert progress["usage"]["inputTokens"] == 30


@pytest.mark.parametrize("kind", ["ABORTED", "FAILED"])
async def test_a_call_without_an_answer_needs_none(house: House, kind: str) -> None:
    """The schema's own word on it: only these two may have no answer."""
    insert = (
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,"
        " request_hash, request, outcome, started_at, finished_at)"
        " VALUES (ekiden.new_session_id(), 1, 1, 1, 'ask', 'p', 'm', '', '', $1, now(), now())"
    )
    await house.pool.execute(insert, kind)
    with pytest.raises(Exception, match="call_answer_is_kept"):
        await house.pool.execute(insert, "ANSWERED")

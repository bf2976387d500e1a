"""What a running call has said is saved as it comes, and nothing that was asked is forgotten."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from ekiden.core.model import Options
from ekiden.core.records import Partial, PartialText
from ekiden.errors import DatabaseUnreachable, ModelUnavailable
from ekiden.providers.protocol import ModelRequest, Usage, storable
from ekiden.store.ledger import Call
from ekiden.store.partials import Partials
from ekiden.store.workers import Workers
from ekiden.worker.partial_writer import MOST, PartialWriter
from ekiden.worker.worker import Worker
from tests.scripted import Said, ScriptedProvider, Streamed
from tests.worker.relay import QUICK, House, asks, working
from tests.worker.streaming import ANSWER_ID, PIECES, half, says

TEXT = "".join(PIECES)


async def until(true: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(20):
        while not (found := await true()):
            await asyncio.sleep(0.01)
    return found


async def only_task(house: House, session: str) -> int:
    return (await house.sessions.tasks(session))[0].id


async def texts(house: House, session: str) -> list[PartialText]:
    tasks = await house.sessions.tasks(session)
    return await house.sessions.partials.texts(session, tasks[0].id) if tasks else []


async def ledger(house: House) -> list[tuple[Any, ...]]:
    rows = await house.pool.fetch(
        "SELECT attempt, number, outcome, answer, input_tokens, output_tokens FROM ekiden.calls"
        " ORDER BY id"
    )
    return [tuple(row.values()) for row in rows]


def in_turn(*said: Said) -> Iterator[Said]:
    return iter(said)


# -- while a call runs ------------------------------------------------------------------------


async def test_what_a_running_call_has_said_is_saved_and_is_a_prefix_of_its_answer(
    house: House,
) -> None:
    goes_on = asyncio.Event()
    # NUL, a lone surrogate, and a character whose halves come apart.
    pieces = ("a\0b\ud800c", "\ud83c", "\udfc3 end \ud83c", "\udfc3.")

    def script(_request: ModelRequest) -> Said:
        return Streamed(pieces=pieces[:3], then=goes_on)

    provider = ScriptedProvider(script)
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one")
        (said,) = await until(lambda: texts(house, session))
        final = storable("".join(pieces))
        assert said.text == "a\ufffdb\ufffdc\U0001f3c3 end "
        assert final.startswith(said.text)
        assert len(provider.answered) == 0
        await house.sessions.cancel(session, actor="me")


async def test_a_call_that_ends_well_has_its_whole_text_saved_a_moment_later(
    house: House,
) -> None:
    """So that whoever watches a step of several calls sees each of them whole."""
    goes_on = asyncio.Event()
    provider = ScriptedProvider(lambda _r: Streamed(pieces=PIECES, then=goes_on))
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one")
        await until(lambda: texts(house, session))
        goes_on.set()
        await house.until(session, "AWAITING_REVIEW", "COMPLETED")

        async def whole() -> bool:
            return [p.text for p in await texts(house, session)] == [TEXT]

        await until(whole)


async def test_quick_calls_leave_no_chunks(house: House) -> None:
    provider = ScriptedProvider(lambda _r: Streamed(pieces=PIECES))
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one")
        await house.until(session)
    assert await texts(house, session) == []


class Counting(Partials):
    """Partials that count the statements that append."""

    written: list[int]

    async def append(self, chunks: Sequence[Partial]) -> None:
        self.written = [*getattr(self, "written", []), len(chunks)]
        await super().append(chunks)


def call(number: int) -> Call:
    return Call(
        session_id="00000000-0000-7000-8000-000000000000", task_id=number, attempt=1, number=1,
        kind="ask", provider="p", model="m", request_hash=b"", request=b"",
    )  # fmt: skip


async def test_all_streams_of_a_worker_are_saved_in_one_statement_and_silence_asks_nothing(
    house: House,
) -> None:
    partials = Counting(house.pool, house.dsn)
    writer = PartialWriter(partials, every=0.1)
    writer.start()
    streams = [writer.open(call(n)) for n in range(1, 51)]
    for stream in streams:
        for piece in PIECES:
            stream.hear(piece)
    await asyncio.gather(*(asyncio.wait_for(s.saved.wait(), 5) for s in streams))
    assert partials.written == [50]
    await asyncio.sleep(0.5)  # five times as long as a writer with text would take
    assert partials.written == [50]
    streams[0].hear("more")
    await asyncio.wait_for(streams[0].saved.wait(), 5)
    assert partials.written == [50, 1]
    await writer.close()


async def test_only_the_beginning_of_an_endless_answer_is_saved(house: House) -> None:
    partials = Partials(house.pool, house.dsn)
    writer = PartialWriter(partials, every=0.01)
    writer.start()
    stream = writer.open(call(1))
    for _ in range(3):
        stream.hear("x" * (MOST // 2 + 1))
    await asyncio.wait_for(stream.saved.wait(), 5)
    await writer.close()
    (said,) = await partials.texts(call(1).session_id, 1)
    assert len(said.text) == MOST


class Lossy(Partials):
    """Partials whose first two appends fail: not written, or written and not confirmed."""

    lost = 0
    written_first = False

    async def append(self, chunks: Sequence[Partial]) -> None:
        fails = self.lost < 2
        if self.written_first or not fails:
            await super().append(chunks)
        if fails:
            self.lost += 1
            raise DatabaseUnreachable


@pytest.mark.parametrize("written_first", [False, True], ids=["not written", "not confirmed"])
async def test_text_whose_saving_failed_is_saved_once_and_in_order(
    house: House, written_first: bool
) -> None:
    partials = Lossy(house.pool, house.dsn)
    partials.written_first = written_first
    writer = PartialWriter(partials, every=0.02)
    writer.start()
    stream = writer.open(call(1))
    for failures, piece in enumerate(PIECES[:3], 1):
        stream.hear(piece)
        await until(lambda failures=failures: _are(partials.lost, min(failures, 2)))
    stream.hear(PIECES[3])
    await asyncio.wait_for(stream.saved.wait(), 10)
    await writer.close()
    (said,) = await partials.texts(call(1).session_id, 1)
    assert said.text == TEXT


async def _are(one: int, other: int) -> bool:
    return one == other


async def test_a_step_goes_on_when_its_text_cannot_be_saved(house: House) -> None:
    await house.pool.execute("ALTER TABLE ekiden.partials RENAME TO elsewhere")
    goes_on = asyncio.Event()
    provider = ScriptedProvider(
        in_turn(
            Streamed(pieces=PIECES, then=ModelUnavailable("cut")),
            Streamed(pieces=PIECES, then=goes_on),
        )
    )
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", QUICK)
        await until(lambda: _are(len(provider.log), 2))
        goes_on.set()
        await house.until(session)
    await house.pool.execute("ALTER TABLE ekiden.elsewhere RENAME TO partials")


# -- when it breaks off -----------------------------------------------------------------------


async def test_the_text_of_a_cut_stream_is_saved_before_the_next_attempt_and_stays(
    house: House,
) -> None:
    left: list[PartialText] = []

    async def script(_request: ModelRequest) -> Said:
        if len(provider.log) == 1:
            return Streamed(pieces=PIECES[:3], then=ModelUnavailable("cut"))
        left.extend(await texts(house, session))
        return TEXT

    provider = ScriptedProvider(script)
    session = ""
    async with working(house.dsn, says(), provider=provider):
        session = await house.begin("one", QUICK)
        await house.until(session)
    assert [(p.attempt, p.call, p.text) for p in left] == [(1, 1, "".join(PIECES[:3]))]
    assert await texts(house, session) == left


async def child(dsn: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.worker.streaming", dsn, stderr=asyncio.subprocess.DEVNULL
    )


async def killed_in_mid_stream(house: House) -> str:
    """Start a session on a worker that is killed while its answer streams; return the session."""
    process = await child(house.dsn)
    try:

        async def known() -> bool:
            flows = await house.sessions.flows()
            return bool(flows) and flows[0].has_worker

        await until(known)
        session = await house.begin("one", QUICK)
        await until(lambda: texts(house, session))
        await until(lambda: house.pool.fetchval("SELECT count(*) FROM ekiden.started_calls"))
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    return session


async def test_kill_9_in_mid_stream_keeps_what_was_said(house: House) -> None:
    session = await killed_in_mid_stream(house)
    (said,) = await texts(house, session)
    assert (said.attempt, said.text) == (1, "".join(PIECES[:2]))
    async with working(house.dsn, says(), provider=ScriptedProvider([TEXT])):
        await house.until(session)
    assert await texts(house, session) == [said]
    assert await house.outcomes(session, await only_task(house, session)) == ["LOST", "COMPLETED"]


async def test_after_kill_9_an_answer_that_the_provider_keeps_is_fetched_and_not_paid_twice(
    house: House,
) -> None:
    session = await killed_in_mid_stream(house)
    provider = ScriptedProvider([])
    provider.stored[ANSWER_ID] = TEXT
    async with working(house.dsn, says(), provider=provider):
        await house.until(session)
    assert (provider.fetched, provider.log) == ([ANSWER_ID], [])
    assert (await house.sessions.tasks(session))[0].result == TEXT
    # It is the answer of the call that asked for it.
    assert await ledger(house) == [(1, 1, "ANSWERED", TEXT.encode(), 10, 8)]


# -- when its step is stopped -----------------------------------------------------------------


async def stopped_in_mid_stream(house: House, said: Streamed) -> str:
    """Cancel a worker while an answer streams; return the session."""
    provider = ScriptedProvider(lambda _r: said)
    worker = Worker(lambda: house.dsn, [says()], provider=provider)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.ready.wait(), 10)
    session = await house.begin("one")
    await asyncio.wait_for(provider.arrived.wait(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
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
    worker = Worker(lambda: house.dsn, [says()], provider=provider)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.ready.wait(), 10)
    session = await house.begin("one")
    await asyncio.wait_for(provider.arrived.wait(), 10)
    comes.set()
    while not provider.answered:
        await asyncio.sleep(0)  # to the very moment: it is here, and stored nowhere
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
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
            await until(lambda: _are(len(provider.log), 2))
            worker._heart.beat_now()
            await until(lambda: _are(worker.id != first, True))
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

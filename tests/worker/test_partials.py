"""What a running call has said is saved as it comes, and nothing that was asked is forgotten."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

import pytest

from ekiden.core.records import Partial, PartialText
from ekiden.errors import DatabaseUnreachable, ModelUnavailable
from ekiden.providers.protocol import ModelRequest, storable
from ekiden.store.ledger import Call
from ekiden.store.partials import Partials
from ekiden.worker.partial_writer import MOST, PartialWriter
from tests.scripted import Said, ScriptedProvider, Streamed
from tests.worker.relay import QUICK, House, working
from tests.worker.streaming import (
    ANSWER_ID,
    PIECES,
    TEXT,
    are,
    in_turn,
    ledger,
    only_task,
    says,
    texts,
    until,
)

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
        await until(lambda failures=failures: are(partials.lost, min(failures, 2)))
    stream.hear(PIECES[3])
    await asyncio.wait_for(stream.saved.wait(), 10)
    await writer.close()
    (said,) = await partials.texts(call(1).session_id, 1)
    assert said.text == TEXT


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
        await until(lambda: are(len(provider.log), 2))
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

"""After a cut, only the rest of an answer is paid for, where the provider can be asked for that."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ekiden.providers.models_by_place import Models
from tests.providers.fake_server import FakeServer, Reply, in_pieces, then_silence
from tests.providers.wires import ANTHROPIC, WIRES, in_turn
from tests.worker.relay import QUICK, House, working
from tests.worker.streaming import says, until

FIRST, SECOND, REST = "The sash is handed ", "over in ", "the zone."
WHOLE = FIRST + SECOND + REST
HEAD = ANTHROPIC.stream("", "stop").split(b"event: content_block_delta")[0]


def begun(text: str) -> bytes:
    """The events of an answer that has only begun."""
    delta = {"type": "text_delta", "text": text}
    event = {"type": "content_block_delta", "index": 0, "delta": delta}
    return HEAD + f"event: content_block_delta\ndata: {json.dumps(event)}\n\n".encode()


def named(body: bytes, number: int) -> bytes:
    """The same events of another message: each has its own id."""
    return body.replace(b'"msg_1"', f'"msg_{number}"'.encode())


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


def asked_to_go_on_from(fake: FakeServer, number: int) -> Any:
    last = fake.requests[number].json["messages"][-1]
    return last["content"] if last["role"] == "assistant" else None


async def result(house: House) -> str:
    told = await house.pool.fetchval(
        "SELECT result::text FROM ekiden.api_tasks WHERE step = 'THINK'"
    )
    return str(json.loads(told))


async def ledger(house: House) -> list[tuple[Any, ...]]:
    rows = await house.pool.fetch(
        "SELECT attempt, outcome, input_tokens, output_tokens FROM ekiden.calls ORDER BY attempt"
    )
    return [tuple(row.values()) for row in rows]


async def saved(house: House, text: str) -> bool:
    said = await house.pool.fetchval(
        "SELECT string_agg(text, '' ORDER BY attempt, seq) FROM ekiden.partials"
    )
    return bool(said) and str(said).endswith(text)


async def test_after_kill_9_in_mid_stream_only_the_rest_is_asked_for(
    house: House, fake: FakeServer
):
    fake.reply = then_silence(begun(FIRST))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.worker.wire_child"),
        *(house.dsn, str(WIRES.index(ANTHROPIC)), str(fake.port)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not await house.pool.fetchval("SELECT count(*) FROM ekiden.flows"):
                await asyncio.sleep(0.02)
        session = await house.begin("one")
        await until(lambda: saved(house, FIRST))
    finally:
        child.kill()
        await child.wait()
    fake.reply = ANTHROPIC.says(f" {SECOND}{REST}")
    async with working(house.dsn, says(), models=Models(ANTHROPIC.provider(fake))):
        progress = await house.until(session)
    assert await result(house) == WHOLE
    assert asked_to_go_on_from(fake, 1) == FIRST.rstrip()
    # Nobody told what the first took: unknown, not zero; and not forgotten.
    assert await ledger(house) == [(1, "ABORTED", None, None), (2, "ANSWERED", 120, 30)]
    assert progress["usage"]["calls"] == 2
    assert progress["cost"] == {"usd": None, "callsWithoutPrice": 2}


async def test_an_answer_that_is_cut_twice_goes_on_from_all_that_was_said(
    house: House, fake: FakeServer
):
    replies: list[Reply] = [
        in_pieces(begun(FIRST)),
        in_pieces(named(begun(f" {SECOND}"), 2)),
        ANTHROPIC.says(f" {REST}"),
    ]
    fake.answering = in_turn(*replies)
    async with working(house.dsn, says(), models=Models(ANTHROPIC.provider(fake))):
        progress = await house.until(await house.begin("one", QUICK))
    assert await result(house) == WHOLE
    assert [asked_to_go_on_from(fake, n) for n in range(3)] == [
        None,
        FIRST.rstrip(),
        (FIRST + SECOND).rstrip(),
    ]
    # Each is counted with what it was said to take before it was cut.
    assert await ledger(house) == [
        (1, "FAILED", 120, 1),
        (2, "FAILED", 120, 1),
        (3, "ANSWERED", 120, 30),
    ]
    assert (progress["usage"]["inputTokens"], progress["usage"]["outputTokens"]) == (360, 32)


async def test_an_answer_that_was_of_no_use_is_not_gone_on_from(house: House, fake: FakeServer):
    """What was cut may be the reason for that."""
    fake.answering = in_turn(
        in_pieces(begun(FIRST)), ANTHROPIC.says("", "refusal"), ANTHROPIC.says(WHOLE)
    )
    async with working(house.dsn, says(), models=Models(ANTHROPIC.provider(fake))):
        await house.until(await house.begin("one", QUICK))
    assert await result(house) == WHOLE
    assert [asked_to_go_on_from(fake, n) for n in range(3)] == [None, FIRST.rstrip(), None]
    assert await ledger(house) == [
        (1, "FAILED", 120, 1),
        (2, "INVALID", 120, 30),  # declining is paid for as well
        (3, "ANSWERED", 120, 30),
    ]

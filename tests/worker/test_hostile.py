"""Whatever a model server sends: stored byte for byte, refused in words, and nothing is stuck.

A real HTTP server, the real provider, a real worker and database; what people see goes through the
real API.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, Field

from ekiden import Context, Flow, Phase
from ekiden.api.settings import ApiSettings
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.openai_compatible import OpenAICompatible
from tests.api.conftest import client_of
from tests.providers.fake_server import FakeServer, Reply, answer, chunk, completion, sse
from tests.worker.relay import QUICK, Count, House, working

ONE_RETRY = replace(QUICK, max_retries=1)
JSON = "application/json"


class Found(BaseModel):
    word: str = Field(max_length=40)
    score: float = 0.5
    number: int = 7
    note: float | None = None


class Asks(Phase):
    """Ask for something"""

    async def think(self, ctx: Context) -> Found:
        return await ctx.ask("What is it?", Found)

    async def integrate(self, ctx: Context, plan: Found) -> str:
        return plan.word


FLOW = CompiledFlow(Flow("hostile", input=Count, phases=[Asks]))
GOOD = completion('{"word": "fine"}')
DEEP = 100_000
HUGE = "7" * 5000


@pytest.fixture
async def asked() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the server sends, and what must be said of it."""

    body: bytes
    type: str = JSON
    because: str = ""  # in the reason that people are shown
    repairs: int = 0  # turns in which the model is asked to do better

    def reply(self) -> Reply:
        return answer(self.body, content_type=self.type)


def said(text: str, because: str) -> Sent:
    """An answer whose text is useless: the model is told so, once an attempt."""
    return Sent(body=completion(text), because=because, repairs=1)


REFUSED = {
    "a lone surrogate, escaped": said('{"word": "\\ud800"}', "hex escape"),
    "NaN": said('{"word": "x", "score": NaN}', "score: NaN"),
    "Infinity": said('{"word": "x", "score": Infinity}', "score: Infinity"),
    "-Infinity where null is allowed": said('{"word": "x", "note": -Infinity}', "note: -Infinity"),
    "1e400": said('{"word": "x", "score": 1e400}', "score: Infinity"),
    "an integer of 5,000 digits": said(f'{{"word": "x", "number": {HUGE}}}', "number out of range"),
    "nesting 100,000 deep": said('{"word": ' + "[" * DEEP, "recursion limit"),
    "a text that is no JSON": said("I am sorry.", "Invalid JSON"),
    "JSON that was cut": said('{"word": "beg', "EOF while parsing"),
    "nothing in the choice": said("", "Invalid JSON"),
    "an envelope 100,000 deep": Sent(
        body=b'{"choices": ' + b"[" * DEEP, because="not complete JSON"
    ),
    "an envelope with an integer of 5,000 digits": Sent(
        body=GOOD[:-1] + b', "usage": {"prompt_tokens": ' + HUGE.encode() + b"}}",
        because="4300 digits",
    ),
    "an event 100,000 deep": Sent(
        body=sse(b'{"choices": ' + b"[" * DEEP, done=True), type="text/event-stream",
        because="not JSON",
    ),
    "a page of HTML with status 200": Sent(
        body=b"<html><h1>Bad gateway</h1></html>", type="text/html", because="Bad gateway"
    ),
    "an envelope that was cut": Sent(body=GOOD[:-20], because="not complete JSON"),
    "an empty body": Sent(body=b"", because="empty"),
    "bytes that are no text": Sent(body=b"\xff\xfe\x00\x01" * 50, because="neither JSON"),
    "an error with status 200": Sent(
        body=b'{"error": {"message": "out of \\u0000 memory"}}', because="out of"
    ),
    "a stream without its end that claims to be JSON": Sent(
        body=sse(chunk('{"word": "half"}')), because="ends before its end"
    ),
    "one line of 5 MB": Sent(body=b"x" * 5_000_000, because="neither JSON"),
    "one event of 5 MB": Sent(
        body=sse(b"x" * 5_000_000, done=True), type="text/event-stream", because="not JSON"
    ),
    "50 MB": Sent(body=completion("x" * 50_000_000), because="Invalid JSON", repairs=1),
}  # fmt: skip


async def shown(house: House, session: str) -> tuple[Any, list[Any], list[list[Any]]]:
    """Return progress, tasks, and each task's calls, as JSON of the real API says."""
    async with client_of(house.sessions, ApiSettings()) as client:
        base = f"/api/hostile/cot-session/{session}"
        progress = await _get(client, f"{base}/progress")
        tasks = (await _get(client, f"{base}/tasks"))["tasks"]
        attempts = [await _get(client, f"{base}/tasks/{t['id']}/attempts") for t in tasks]
    return progress, tasks, [tried["calls"] for tried in attempts]


async def _get(client: httpx2.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    return json.loads(response.content, parse_constant=_no_json)


def _no_json(constant: str) -> None:
    raise AssertionError(f"the API shows {constant}, which is no JSON")


async def stored(house: House) -> list[tuple[bytes | None, str, str | None]]:
    rows = await house.pool.fetch("SELECT answer, outcome, error FROM ekiden.calls ORDER BY id")
    return [(row["answer"], row["outcome"], row["error"]) for row in rows]


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_used_is_stored_refused_in_words_and_resumed_later(
    house: House, asked: FakeServer, sent: Sent
) -> None:
    provider = OpenAICompatible(base_url=asked.url, model="m")
    asked.reply = sent.reply()
    async with working(house.dsn, FLOW, provider=provider) as worker:
        session = await house.begin("hostile", ONE_RETRY)
        await house.until(session, "FAILED")
        progress, (task,), (calls,) = await shown(house, session)
        tries = 2 * (1 + sent.repairs)
        assert len(asked.requests) == tries
        for body, outcome, error in await stored(house):
            assert body == sent.body
            assert outcome == "INVALID"
            assert sent.because in (error or "")
        assert sent.because in progress["error"]["message"]
        assert len(progress["error"]["message"]) < 1000
        assert progress["waitingFor"]["kind"] == "resume"
        assert task["status"] == "FAILED"
        assert task["result"] is None
        assert [call["outcome"] for call in calls] == ["INVALID"] * tries
        assert all(sent.because in call["error"] for call in calls)

        asked.reply = answer(GOOD, content_type=JSON)
        await house.sessions.resume(session, actor="me")
        await house.until(session)
        assert worker.ready.is_set()
    assert [t.result for t in await house.sessions.tasks(session)][-1] == "fine"
    await provider.close()


BOM = b"\xef\xbb\xbf"
WHOLE = sse(chunk('{"word": "fine"}'), chunk("", finish="stop"), done=True)

KEPT = {
    "NUL, escaped in the answer": (Sent(body=completion('{"word": "a\\u0000b"}')), "a\0b"),
    "NUL in the envelope": (Sent(body=completion('{"word": "a\0b"}')), "a�b"),
    "NUL, raw": (Sent(body=GOOD.replace(b"fine", b"a\0b")), "a�b"),
    "a lone surrogate in the envelope": (Sent(body=completion('{"word": "a\ud800b"}')), "a�b"),
    "a lone surrogate, raw": (Sent(body=GOOD.replace(b"fine", b"a\xed\xa0\x80b")), "a���b"),
    "bytes that are no UTF-8": (Sent(body=GOOD.replace(b"fine", b"a\xffb")), "a�b"),
    "duplicate keys": (Sent(body=completion('{"word": "no", "word": "last"}')), "last"),
    "a byte order mark": (Sent(body=BOM + GOOD), "fine"),
    "a byte order mark before a stream": (Sent(body=BOM + WHOLE, type="text/event-stream"), "fine"),
    "a stream that claims to be JSON": (Sent(body=WHOLE), "fine"),
    "JSON that claims to be a page": (Sent(body=GOOD, type="text/html"), "fine"),
    "JSON that claims nothing": (Sent(body=GOOD, type="\x7f;;"), "fine"),
    "a model with a hostile name": (
        Sent(body=completion('{"word": "fine"}', model="\0\ud800" * 100_000)), "fine",
    ),
    "usage beyond all measure": (
        Sent(body=completion('{"word": "fine"}', usage={
            "prompt_tokens": 10**30, "completion_tokens": True, "cost": float("inf"),
        })), "fine",
    ),
    "a cost of 4,000 digits": (
        Sent(body=completion('{"word": "fine"}', usage={"cost": 10**4000})), "fine"
    ),
    "a cost that is no number": (
        Sent(body=completion('{"word": "fine"}', usage={"cost": float("nan")})), "fine"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "word"), KEPT.values(), ids=KEPT)
async def test_what_can_be_used_is_used_and_stored_as_it_came(
    house: House, asked: FakeServer, sent: Sent, word: str
) -> None:
    provider = OpenAICompatible(base_url=asked.url, model="m")
    asked.reply = sent.reply()
    async with working(house.dsn, FLOW, provider=provider):
        session = await house.begin("hostile", ONE_RETRY)
        await house.until(session, "COMPLETED", "FAILED")
    progress, tasks, (calls, _) = await shown(house, session)
    assert progress["error"] is None
    assert [(body, outcome) for body, outcome, _ in await stored(house)] == [
        (sent.body, "ANSWERED")
    ]
    assert tasks[0]["result"]["word"] == word
    assert tasks[1]["result"] == word
    (call,) = calls
    assert len(call["model"]) <= 200
    assert call["inputTokens"] is None
    assert call["outputTokens"] is None
    assert call["costUsd"] is None
    await provider.close()


UNFINISHED = {
    "a stream that was cut": (
        answer(sse(chunk('{"word": "half"}'))), "was cut after",
    ),
    "a body shorter than it claims": (
        answer(GOOD, content_type=JSON, claims=len(GOOD) + 1), "broke",
    ),
    "an error in the middle of a stream": (
        answer(sse(chunk("{"), b'{"error": {"code": "' + HUGE.encode() + b'"}}')), "failed with",
    ),
    "an error in a stream, nested deep": (
        answer(sse(b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}")), "failed with",
    ),
    "more than the provider takes": (
        answer(completion("x" * 200_000), content_type=JSON), "longer than 100,000 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "because"), UNFINISHED.values(), ids=UNFINISHED)
async def test_what_did_not_come_in_full_is_a_failed_call_and_resumed_later(
    house: House, asked: FakeServer, reply: Reply, because: str
) -> None:
    provider = OpenAICompatible(base_url=asked.url, model="m", max_bytes=100_000)
    asked.reply = reply
    async with working(house.dsn, FLOW, provider=provider):
        session = await house.begin("hostile", ONE_RETRY)
        await house.until(session, "FAILED")
        progress, _, (calls,) = await shown(house, session)
        assert because in progress["error"]["message"]
        assert [call["outcome"] for call in calls] == ["FAILED", "FAILED"]
        asked.reply = answer(GOOD, content_type=JSON)
        await house.sessions.resume(session, actor="me")
        await house.until(session)
    await provider.close()

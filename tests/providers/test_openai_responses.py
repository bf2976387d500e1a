"""OpenAI's Responses API in the background.

https://developers.openai.com/api/docs/guides/background
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from ekiden.config import Settings
from ekiden.errors import ModelUnavailable, SettingsError, StillAnswering
from ekiden.providers import openai_compatible
from ekiden.providers.breaker import FAILURES
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.openai_responses import OpenAIResponses
from ekiden.providers.protocol import Citation, Message, ModelRequest, Priced, RawAnswer, Withdraws
from tests.providers.fake_server import FakeServer, Received, Reply, answer, in_pieces, nothing
from tests.providers.wires import BACKGROUND, RESPONSE_ID, answered, response

SAY = ModelRequest(messages=(Message(role="user", content="say hello"),))
TEXT = "hello from the background"
WHOLE = BACKGROUND.stream(TEXT, "stop")
CUT = WHOLE[: WHOLE.rindex(b"event: response.output_text.delta")]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
async def provider(server: FakeServer) -> AsyncIterator[OpenAIResponses]:
    made = cast("OpenAIResponses", BACKGROUND.provider(server))
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_FIRST_LOOK", 0.01)


def told(document: dict[str, Any]) -> Reply:
    return answer(json.dumps(document).encode(), content_type="application/json")


def then(server: FakeServer, first: Reply, *looks: dict[str, Any]) -> None:
    """Answer the question with ``first``, and each look with the next of ``looks``."""
    left = list(looks)

    def answering(received: Received) -> Reply:
        if received.method == "POST":
            return first
        assert received.path == f"/v1/responses/{RESPONSE_ID}"
        return told(left.pop(0) if len(left) > 1 else left[0])

    server.answering = answering


def asked(server: FakeServer) -> list[str]:
    return [received.method for received in server.requests]


async def test_it_is_asked_to_go_on_and_to_keep_the_answer(server, provider):
    server.reply = BACKGROUND.says(TEXT)
    named: list[str] = []

    async def note(answer_id: str) -> None:
        named.append(answer_id)

    raw = await provider.send(SAY, on_id=note)
    assert provider.read(raw).text == TEXT
    assert named == [RESPONSE_ID]
    body = server.requests[0].json
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)
    assert "seed" not in body


async def test_an_answer_whose_stream_is_cut_is_fetched_and_heard_to_its_end(server, provider):
    then(server, in_pieces(CUT), response("in_progress", "hel"), answered(TEXT))
    heard: list[str] = []
    raw = await provider.send(SAY, on_text=heard.append)
    read = provider.read(raw)
    assert (read.text, "".join(heard)) == (TEXT, TEXT)
    assert (read.finish_reason, read.usage.input_tokens) == ("stop", 120)
    assert asked(server) == ["POST", "GET", "GET"]


async def test_a_server_that_does_not_stream_is_looked_at_until_it_is_done(server, provider):
    then(server, told(response("queued")), response("in_progress"), answered(TEXT, "length"))
    heard: list[str] = []
    read = provider.read(await provider.send(SAY, on_text=heard.append))
    assert (read.text, heard, read.finish_reason) == (TEXT, [TEXT], "length")


async def test_what_takes_long_is_left_for_later(server, provider, monkeypatch):
    monkeypatch.setattr(openai_compatible, "_IN_PLACE", 0.05)
    then(server, in_pieces(CUT), response("in_progress"))
    with pytest.raises(StillAnswering, match="still working") as caught:
        await provider.send(SAY)
    assert not caught.value.counts
    assert caught.value.retry_after is not None


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_one_that_failed_or_was_cancelled_is_no_answer(server, provider, status):
    then(server, in_pieces(CUT), response(status))
    assert await provider.fetch(RESPONSE_ID) is None
    with pytest.raises(ModelUnavailable, match="cut"):
        await provider.send(SAY)


async def test_a_failure_in_the_stream_has_its_words(server, provider):
    error = {"code": "server_error", "message": "The model is out of breath."}
    failed = {"type": "response.failed", "response": response("failed", error=error)}
    start = WHOLE[: WHOLE.index(b"event: response.in_progress")]
    then(server, answer(start + f"data: {json.dumps(failed)}\n\n".encode()), response("failed"))
    with pytest.raises(ModelUnavailable, match="out of breath"):
        await provider.send(SAY)
    flat = {"type": "error", "code": "server_error", "message": "Lost its way.", "param": None}
    then(server, answer(start + f"data: {json.dumps(flat)}\n\n".encode()), response("failed"))
    with pytest.raises(ModelUnavailable, match="Lost its way"):
        await provider.send(SAY)


async def test_it_is_told_when_nobody_waits_any_more(server, provider):
    assert isinstance(provider, Withdraws)
    server.reply = told(response("cancelled"))
    await provider.withdraw(RESPONSE_ID)
    [received] = server.requests
    assert (received.method, received.path) == ("POST", f"/v1/responses/{RESPONSE_ID}/cancel")
    server.reply = answer(b'{"error": {"message": "it is over"}}', status=400)
    await provider.withdraw(RESPONSE_ID)  # nothing is being made any more
    server.reply = answer(b"{}", status=500)
    with pytest.raises(ModelUnavailable):
        await provider.withdraw(RESPONSE_ID)


def test_pages_that_it_cites_are_kept_once(provider):
    body = answered("As reported.")
    note = {"type": "url_citation", "url": "https://example.org/a", "title": "A"}
    body["output"].insert(0, {"type": "web_search_call", "id": "ws_1", "status": "completed"})
    body["output"][1]["content"][0]["annotations"] = [note, note, {"type": "file_citation"}]
    read = provider.read(RawAnswer(body=json.dumps(body).encode(), status=200))
    assert read.citations == (Citation(url="https://example.org/a", title="A"),)


def test_tokens_out_of_the_cache_are_not_counted_twice(provider):
    details = {"cached_tokens": 100}
    usage = {"input_tokens": 120, "input_tokens_details": details, "output_tokens": 30}
    body = response("completed", "x", usage=usage)
    read = provider.read(RawAnswer(body=json.dumps(body).encode(), status=200))
    assert (read.usage.input_tokens, read.usage.output_tokens) == (120, 30)


def test_a_model_that_thinks_has_room_for_it_and_its_price_says_so():
    def most(background: frozenset[str]) -> Decimal:
        settings = ProviderSettings(
            home=Path("/nowhere"), keys={"openai": "k"}, background=background
        )
        found = cast("Priced", Catalog(settings).get("openai:gpt-5-mini")).most_it_costs(300, 100)
        assert found is not None
        return found

    assert most(frozenset({"openai:gpt-5-mini"})) > most(frozenset())


async def test_the_most_tokens_that_an_answer_may_have_are_those_that_it_is_allowed(server):
    server.reply = answer(WHOLE)
    for model in ("gpt-5-mini", "gpt-4o"):
        provider = OpenAIResponses(base_url=server.url, model=model, name="openai")
        await provider.send(replace(SAY, max_tokens=1))
        allowed = server.requests[-1].json["max_output_tokens"]
        assert provider.most_tokens(1) == allowed
        await provider.close()


def test_only_models_of_openai_can_be_asked_so(monkeypatch: pytest.MonkeyPatch):
    from ekiden.config import load_settings

    monkeypatch.setenv("EKIDEN_BACKGROUND", "openai:gpt-5-pro, perplexity:sonar")
    load_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"EKIDEN_BACKGROUND.*perplexity:sonar"):
        load_settings()
    monkeypatch.setenv("EKIDEN_BACKGROUND", "openai:gpt-5-pro")
    assert Settings().background == "openai:gpt-5-pro"
    load_settings.cache_clear()


async def test_a_server_that_asks_for_a_day_is_looked_at_before(server):
    day = {"retry-after": "86400"}
    body = json.dumps(response("in_progress")).encode()
    for reply in (
        answer(b"{}", status=429, headers=day),
        answer(body, content_type="application/json", headers=day),
    ):
        server.reply = reply
        provider = cast("OpenAIResponses", BACKGROUND.provider(server))
        with pytest.raises(StillAnswering) as caught:
            await provider.fetch(RESPONSE_ID)
        await provider.close()
        assert caught.value.retry_after == 900


def busy(seconds: int) -> Reply:
    return answer(b"{}", status=429, headers={"retry-after": str(seconds)})


@pytest.mark.parametrize(
    ("look", "wait"),
    [(in_pieces(b""), 15), (answer(b"{}", status=502), 15), (busy(0), 15), (busy(20), 20)],
    ids=["cut", "502", "429 without a wait", "429"],
)
async def test_where_nobody_can_look_the_answer_is_being_made_all_the_same(server, look, wait):
    server.answering = lambda received: in_pieces(CUT) if received.method == "POST" else look
    for how in ("fetch", "send"):
        provider = cast("OpenAIResponses", BACKGROUND.provider(server))
        with pytest.raises(StillAnswering) as caught:
            await (provider.fetch(RESPONSE_ID) if how == "fetch" else provider.send(SAY))
        await provider.close()
        assert caught.value.retry_after == wait


async def test_a_provider_that_is_down_is_not_looked_at_past_its_breaker(server, provider):
    server.reply = answer(b"{}", status=502)
    for _ in range(FAILURES + 3):
        with pytest.raises(StillAnswering) as caught:
            await provider.fetch(RESPONSE_ID)
        assert caught.value.retry_after >= 15
    assert len(server.requests) == FAILURES


async def test_a_look_at_a_black_hole_is_soon_over(server, provider, monkeypatch):
    monkeypatch.setattr(openai_compatible, "_SILENCE", 0.1)
    server.reply = nothing
    with pytest.raises(StillAnswering, match=r"silent for 0\.1 s"):
        await asyncio.wait_for(provider.fetch(RESPONSE_ID), 10)

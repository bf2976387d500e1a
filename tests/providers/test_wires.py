"""What every provider must do, on each wire format (see `wires` for the documentation's pages)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from ekiden.errors import (
    ModelBusy,
    ModelRefused,
    ModelUnavailable,
    StillAnswering,
)
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.protocol import Citation, Message, ModelRequest, RawAnswer, Usage
from tests.providers.fake_server import FakeServer, answer, in_pieces, nothing, then_silence
from tests.providers.wires import (
    ANTHROPIC,
    BACKGROUND,
    GEMINI,
    OPENAI,
    PERPLEXITY,
    TOKENS_IN,
    TOKENS_OUT,
    WIRES,
    Wire,
)


class Word(BaseModel):
    word: str = Field(max_length=40)


SAY = ModelRequest(messages=(Message(role="system", content="Be brief."),
                             Message(role="user", content="駅伝?")), max_tokens=77)  # fmt: skip
STRUCTURED = ModelRequest(messages=SAY.messages, schema=Word.model_json_schema())

each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.label)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@each_wire
async def test_text_finish_usage_cost_citations_and_times_are_read(wire: Wire, server: FakeServer):
    server.reply = wire.says("たすきを渡す", "length", **{"x-request-id": "req-1"})
    provider = wire.provider(server)
    heard: list[str] = []
    raw = await provider.send(SAY, on_text=heard.append)
    read = provider.read(raw)
    assert (read.text, "".join(heard)) == ("たすきを渡す", "たすきを渡す")
    assert len([piece for piece in heard if piece]) == 2
    assert (read.finish_reason, read.model) == ("length", wire.model)
    assert (read.usage.input_tokens, read.usage.output_tokens) == (TOKENS_IN, TOKENS_OUT)
    cited = (Citation(url="https://example.org/ekiden", title="Ekiden", published="2026-01-02"),)
    assert read.citations == (cited if wire.cites else ())
    assert raw.request_id == "req-1"
    assert raw.took is not None
    assert raw.first_token is not None
    assert 0 < raw.first_token <= raw.took
    assert server.requests[0].path == wire.path
    assert server.requests[0].headers["authorization"] == "Bearer key-0123456789"
    await provider.close()


@each_wire
async def test_the_request_has_the_system_text_the_question_the_bound_and_the_schema(
    wire: Wire, server: FakeServer
):
    server.reply = wire.says('{"word": "ekiden"}')
    provider = wire.provider(server)
    await provider.send(SAY)
    await provider.send(STRUCTURED)
    plain, structured = (received.json for received in server.requests)
    assert plain["stream"] is True
    assert plain["model"] == wire.model
    assert "Be brief." in json.dumps(plain)
    assert (plain.get("messages") or plain["input"])[-1] == {"role": "user", "content": "駅伝?"}
    bounds = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    assert next(plain[name] for name in bounds if name in plain) >= 77
    assert wire.schema_at(structured)["properties"]["word"]["type"] == "string"
    with pytest.raises(KeyError):
        wire.schema_at(plain)
    await provider.close()


@each_wire
async def test_429_says_when_to_come_back(wire: Wire, server: FakeServer):
    headers, body = wire.busy
    server.reply = answer(body, status=429, content_type="application/json", headers=headers)
    provider = wire.provider(server)
    with pytest.raises(ModelBusy) as caught:
        await provider.send(SAY)
    assert caught.value.retry_after == 2
    await provider.close()


@each_wire
@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ModelRefused), (400, ModelRefused), (500, ModelUnavailable), (302, ModelRefused)],
)
async def test_other_failures_have_their_names_and_never_show_the_key(
    wire: Wire, server: FakeServer, status, error
):
    server.reply = answer(
        b'{"error": {"type": "x", "message": "no: key-0123456789"}}',
        status=status,
        content_type="application/json",
        headers={"Location": "https://elsewhere.example/"},
    )
    provider = wire.provider(server)
    with pytest.raises(error) as caught:
        await provider.send(SAY)
    assert "key-0123456789" not in caught.value.message
    assert len(server.requests) == 1
    await provider.close()


@each_wire
async def test_a_stream_that_is_cut_or_silent_is_no_answer(wire: Wire, server: FakeServer):
    body = wire.stream("half of an answer", "stop")
    provider = wire.provider(server)
    cut = body[: body.index(b"an answer")]  # in the middle of an event, after the first text
    server.reply = in_pieces(cut)
    # What is made in the background is still being made: it is waited for, not asked for again.
    error = StillAnswering if wire.background else ModelUnavailable
    with pytest.raises(error, match="cut"):
        await provider.send(SAY)
    server.reply = then_silence(cut)
    first = asyncio.Event()
    asking = asyncio.ensure_future(provider.send(SAY, on_text=lambda _: first.set()))
    await asyncio.wait_for(first.wait(), 30)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(server.hung_up.wait(), 30)
    await provider.close()


@each_wire
async def test_an_answer_of_the_ledger_is_read_by_whoever_is_asked_by_now(
    wire: Wire, server: FakeServer
):
    server.reply = wire.says("paid is paid")
    provider = wire.provider(server)
    raw = await provider.send(SAY)
    for other in WIRES:
        assert other.provider(server).read(raw).text == "paid is paid"
    await provider.close()


@pytest.mark.parametrize(
    ("wire", "cost"),
    # 120 tokens in and 30 out: dollars by the list, a million at a time; Perplexity states its own.
    [
        (OPENAI, 120 * 0.25 + 30 * 2),
        (PERPLEXITY, 5000),
        (GEMINI, 120 * 0.3 + 30 * 2.5),
        (ANTHROPIC, 120 * 1 + 30 * 5),
        (BACKGROUND, 120 * 0.25 + 30 * 2),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_at_its_own_address_the_price_is_known(wire: Wire, cost: float):
    catalog = Catalog(ProviderSettings(home=Path("/nowhere"), keys={wire.name: "k"}))
    provider = catalog.get(f"{wire.name}:{wire.model}")
    body = wire.stream("hello", "stop")
    read = provider.read(RawAnswer(body=body, status=200, content_type="text/event-stream"))
    assert read.usage.cost_usd == pytest.approx(cost / 1_000_000)


async def test_anthropic_an_error_in_the_stream_has_the_name_of_its_type(server: FakeServer):
    """https://platform.claude.com/docs/en/build-with-claude/streaming#error-events"""
    start = ANTHROPIC.stream("half", "stop").split(b"event: message_delta")[0]
    for type_, error in (("overloaded_error", ModelBusy), ("api_error", ModelUnavailable)):
        event = {"type": "error", "error": {"type": type_, "message": "told"}}
        server.reply = answer(start + f"event: error\ndata: {json.dumps(event)}\n\n".encode())
        provider = ANTHROPIC.provider(server)
        used: list[Usage] = []
        with pytest.raises(error, match="told"):
            await provider.send(SAY, on_usage=used.append)
        assert used[0].input_tokens == TOKENS_IN  # it is paid for all the same
        await provider.close()


async def test_anthropic_a_refusal_is_told_with_what_it_took(server: FakeServer):
    """https://platform.claude.com/docs/en/test-and-evaluate/strengthen-guardrails"""
    server.reply = ANTHROPIC.says("", "refusal")
    provider = ANTHROPIC.provider(server)
    read = provider.read(await provider.send(SAY))
    assert read.declined is not None
    assert read.usage.input_tokens == TOKENS_IN  # it is paid for all the same
    await provider.close()


async def test_anthropic_what_strict_mode_cannot_say_is_said_in_words(server: FakeServer):
    server.reply = ANTHROPIC.says("{}")
    provider = ANTHROPIC.provider(server)
    free = {"type": "object", "additionalProperties": {"type": "string"}}
    await provider.send(ModelRequest(messages=SAY.messages, schema=free))
    [received] = server.requests
    assert "output_config" not in received.json
    assert json.dumps(free) in received.json["system"]
    await provider.close()


async def test_anthropic_without_its_sdk_says_what_to_install(monkeypatch, server: FakeServer):
    monkeypatch.setattr("ekiden.providers.installed.find_spec", lambda _name: None)
    with pytest.raises(Exception, match=r"ekiden\[anthropic\]"):
        ANTHROPIC.provider(server)


async def test_anthropic_no_other_credential_of_the_environment_leaves(
    monkeypatch, server: FakeServer
):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another-secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "one-more-secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://elsewhere.example")
    server.reply = ANTHROPIC.says("hello")
    provider = ANTHROPIC.provider(server)
    await provider.send(SAY)
    assert "secret" not in json.dumps(server.requests[0].headers)
    await provider.close()


async def test_a_server_that_never_answers_is_given_up_after_its_silence(server: FakeServer):
    from ekiden.providers.anthropic_messages import AnthropicMessages

    server.reply = nothing
    provider = AnthropicMessages(
        base_url=server.origin, model="m", api_key="k", name="anthropic", silence=0.1
    )
    with pytest.raises(ModelUnavailable, match="silent"):
        await provider.send(SAY)
    await provider.close()

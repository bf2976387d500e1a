"""Asking Anthropic for the rest of an answer that was cut.

https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/prefill-claudes-response
https://platform.claude.com/docs/en/about-claude/models/migration-guide (no prefill from 4.6 on)
https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/claude-prompting-best-practices
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ekiden.providers.protocol import GoesOn, Message, ModelRequest
from tests.providers.fake_server import FakeServer, answer
from tests.providers.wires import ANTHROPIC, WIRES, Wire

OLD = ANTHROPIC
NEW = replace(ANTHROPIC, model="claude-opus-4-6")
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
ASK = ModelRequest(messages=(Message(role="user", content="Tell me."),), said="駅伝 is \n")


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


async def sent(wire: Wire, server: FakeServer, request: ModelRequest = ASK) -> tuple[str, str]:
    """Ask for the rest; return the answer as it is read, and as it was heard."""
    provider = wire.provider(server)
    heard: list[str] = []
    raw = await provider.send(request, on_text=heard.append)
    await provider.close()
    for other in WIRES:  # an answer of the ledger is read by whoever is asked by now
        assert other.provider(server).read(raw).text == provider.read(raw).text
    usage = provider.read(raw).usage
    assert (usage.input_tokens, usage.output_tokens) == (120, 30)
    return provider.read(raw).text, "".join(heard)


async def test_a_model_up_to_4_5_goes_on_from_what_it_said(server: FakeServer):
    server.reply = OLD.says(" a relay race.")
    whole = "駅伝 is a relay race."
    assert await sent(OLD, server) == (whole, whole)
    # It may not end in white space.
    assert server.requests[0].json["messages"] == [
        {"role": "user", "content": "Tell me."},
        {"role": "assistant", "content": "駅伝 is"},
    ]


async def test_with_a_schema_it_does_so_too_and_is_told_the_schema_in_words(server: FakeServer):
    server.reply = OLD.says(' "sash"}')
    request = replace(ASK, schema=SCHEMA, said='{"word":')
    assert (await sent(OLD, server, request))[0] == '{"word": "sash"}'
    body = server.requests[0].json
    assert "output_config" not in body
    assert json.dumps(SCHEMA) in body["system"]


async def test_a_later_model_is_told_what_it_said_and_to_continue(server: FakeServer):
    server.reply = NEW.says(" a relay race.")
    assert (await sent(NEW, server))[0] == "駅伝 is a relay race."
    turns = server.requests[0].json["messages"]
    assert [turn["role"] for turn in turns] == ["user", "user"]
    assert "駅伝 is\n" in turns[-1]["content"]
    assert "Continue from where you left off." in turns[-1]["content"]


@pytest.mark.parametrize(
    ("model", "with_schema"),
    [
        ("claude-3-5-haiku-latest", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-1", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-4-6-20260201", False),
        ("claude-opus-4-50", False),
        ("claude-sonnet-5", False),
        ("something-else", False),
    ],
)
def test_which_models_can_be_asked_for_the_rest_of_an_object(model: str, with_schema: bool):
    provider = replace(ANTHROPIC, model=model).provider(FakeServerAt())
    assert isinstance(provider, GoesOn)
    assert provider.goes_on(ASK)
    assert provider.goes_on(replace(ASK, schema=SCHEMA)) is with_schema


class FakeServerAt(FakeServer):
    """A server that is never asked."""

    origin = url = "http://127.0.0.1:1"


async def test_the_rest_may_come_as_one_document(server: FakeServer):
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": " a relay race."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 120, "output_tokens": 30},
    }
    body = json.dumps(whole, indent=1).encode()
    server.reply = answer(body, content_type="application/json")
    assert (await sent(OLD, server))[0] == "駅伝 is a relay race."


async def test_what_was_not_cut_is_asked_for_as_ever(server: FakeServer):
    server.reply = OLD.says("hello")
    assert await sent(OLD, server, replace(ASK, said="")) == ("hello", "hello")
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "Tell me."}]

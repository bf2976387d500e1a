"""Each provider's wire format, as its public documentation has it, on a scripted server.

openai      https://platform.openai.com/docs/api-reference/chat-streaming
background  https://developers.openai.com/api/docs/guides/background
            https://developers.openai.com/api/docs/guides/streaming-responses
perplexity  https://docs.perplexity.ai/api-reference/chat-completions-post
gemini      https://ai.google.dev/gemini-api/docs/openai
anthropic   https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.protocol import Provider
from tests.providers.fake_server import FakeServer, Received, Reply, answer

TOKENS_IN, TOKENS_OUT = 120, 30
FOUND = [{"title": "Ekiden", "url": "https://example.org/ekiden", "date": "2026-01-02"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How one provider answers."""

    name: str
    model: str
    path: str  # that is asked
    stream: Callable[[str, str], bytes]  # text and finish reason -> the events
    schema_at: Callable[[Any], Any]  # where a request has the schema
    busy: tuple[dict[str, str], bytes]  # headers and body of a 429
    cost: float  # of TOKENS_IN and TOKENS_OUT
    cites: bool = False
    background: bool = False  # asked so that it goes on when nobody listens

    @property
    def label(self) -> str:
        """What a test is called by."""
        return "background" if self.background else self.name

    def provider(self, server: FakeServer, **settings: Any) -> Provider:
        """Return the provider, pointed at a server by the settings alone."""
        url = server.origin if self.name == "anthropic" else server.url
        if self.background:
            settings["background"] = frozenset({f"{self.name}:{self.model}"})
        catalog = Catalog(
            ProviderSettings(
                home=Path("/nowhere"),
                keys={self.name: "key-0123456789"},
                base_urls={self.name: url},
                **settings,
            )
        )
        return catalog.get(f"{self.name}:{self.model}")

    def says(self, text: str, finish: str = "stop", **headers: str) -> Reply:
        """Answer with this text."""
        return answer(self.stream(text, finish), headers=headers)


def _chunks(text: str, finish: str, model: str, last: dict[str, Any], **each: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    half = len(text) // 2
    events = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]}
        for piece in (text[:half], text[half:])
    ]
    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, last]
    told = (f"data: {json.dumps(head | each | event)}\n\n" for event in events)
    return ("".join(told) + "data: [DONE]\n\n").encode()


_OPENAI_USAGE = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": 150}


def _openai(text: str, finish: str) -> bytes:
    return _chunks(text, finish, "gpt-5-mini", {"choices": [], "usage": _OPENAI_USAGE})


def _gemini(text: str, finish: str) -> bytes:
    return _chunks(text, finish, "gemini-2.5-flash", {"choices": [], "usage": _OPENAI_USAGE})


def _perplexity(text: str, finish: str) -> bytes:
    usage = _OPENAI_USAGE | {"search_context_size": "low", "cost": {"total_cost": 0.005}}
    last = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish}]}
    return _chunks(
        text, finish, "sonar", last, usage=usage, citations=[FOUND[0]["url"]], search_results=FOUND
    )


_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _anthropic(text: str, finish: str) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-haiku-4-5",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": TOKENS_IN, "output_tokens": 1},
    }
    half = len(text) // 2
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in (text[:half], text[half:])
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": _REASONS.get(finish, finish), "stop_sequence": None},
            "usage": {"output_tokens": TOKENS_OUT},
        },
        {"type": "message_stop"},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()


RESPONSE_ID = "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"


def response(status: str, text: str = "", **told: Any) -> dict[str, Any]:
    """A response object as it stands."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": 1741476777,
        "status": status,
        "background": True,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-5-mini",
        "output": [message] if text else [],
        "usage": None,
    } | told


_RESPONSE_USAGE = {
    "input_tokens": TOKENS_IN,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": TOKENS_OUT,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": TOKENS_IN + TOKENS_OUT,
}


def answered(text: str, finish: str = "stop") -> dict[str, Any]:
    """A response that is over."""
    if finish == "stop":
        return response("completed", text, usage=_RESPONSE_USAGE)
    why = {"reason": "max_output_tokens" if finish == "length" else finish}
    return response("incomplete", text, usage=_RESPONSE_USAGE, incomplete_details=why)


def _background(text: str, finish: str) -> bytes:
    half = len(text) // 2
    item = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    last = answered(text, finish)
    events = [
        {"type": "response.created", "response": response("queued")},
        {"type": "response.in_progress", "response": response("in_progress")},
        *(
            {"type": "response.output_text.delta", "delta": piece, "logprobs": [], **item}
            for piece in (text[:half], text[half:])
        ),
        {"type": "response.output_text.done", "text": text, **item},
        {"type": f"response.{last['status']}", "response": last},
    ]
    numbered = (event | {"sequence_number": number} for number, event in enumerate(events))
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in numbered).encode()


def _response_format(body: Any) -> Any:
    return body["response_format"]["json_schema"]["schema"]


_OPENAI_BUSY = (
    {"Retry-After": "2", "x-request-id": "req-busy"},
    b'{"error": {"message": "Rate limit reached", "type": "requests", "code": '
    b'"rate_limit_exceeded"}}',
)

OPENAI = Wire(
    name="openai",
    model="gpt-5-mini",
    path="/v1/chat/completions",
    stream=_openai,
    schema_at=_response_format,
    busy=_OPENAI_BUSY,
    cost=0.0,
)
PERPLEXITY = Wire(
    name="perplexity",
    model="sonar",
    path="/v1/chat/completions",
    stream=_perplexity,
    schema_at=_response_format,
    busy=_OPENAI_BUSY,
    cost=0.005,
    cites=True,
)
GEMINI = Wire(
    name="gemini",
    model="gemini-2.5-flash",
    path="/v1/chat/completions",
    stream=_gemini,
    schema_at=_response_format,
    busy=(
        {},
        b'[{"error": {"code": 429, "message": "Resource has been exhausted", "status": '
        b'"RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", '
        b'"retryDelay": "2s"}]}}]',
    ),
    cost=0.0,
)
ANTHROPIC = Wire(
    name="anthropic",
    model="claude-haiku-4-5",
    path="/v1/messages",
    stream=_anthropic,
    schema_at=lambda body: body["output_config"]["format"]["schema"],
    busy=(
        {"retry-after": "2", "request-id": "req-busy"},
        b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Number of requests '
        b'has exceeded your rate limit."}, "request_id": "req-busy"}',
    ),
    cost=0.0,
)
BACKGROUND = Wire(
    name="openai",
    model="gpt-5-mini",
    path="/v1/responses",
    stream=_background,
    schema_at=lambda body: body["text"]["format"]["schema"],
    busy=_OPENAI_BUSY,
    cost=0.0,
    background=True,
)
WIRES = [OPENAI, PERPLEXITY, GEMINI, ANTHROPIC, BACKGROUND]


def in_turn(*replies: Reply) -> Callable[[Received], Reply]:
    """Give these replies one after the other, and the last one for ever."""
    left = list(replies)
    return lambda _received: left.pop(0) if len(left) > 1 else left[0]

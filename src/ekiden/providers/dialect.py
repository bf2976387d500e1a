"""How a request is spelled for each of the servers that speak the OpenAI chat protocol.

They agree on the shape and differ in the corners: what bounds the length is called, which schema
keywords are allowed, which fields make them answer 400. The corners are data (`Dialect`), the
spelling is a pure function of request and dialect (`spell`), so that all of it is testable
without a server.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ekiden.providers.protocol import ModelRequest

# OpenAI's models that think before they write. They refuse a temperature, and their thoughts are
# counted in max_completion_tokens, so the visible text needs room on top of them.
_REASONING = re.compile(r"^(o\d|gpt-5)(?!.*-chat)")
_ROOM_TO_THINK = 4096

# Keywords that OpenAI's strict mode answers with 400. The engine validates every answer against
# the real schema afterwards, so leaving them out here loses nothing but a hint.
_NOT_IN_STRICT = frozenset({"default", "maxLength", "minLength", "title", "examples"})

# Keywords whose value is a mapping from names to schemas: the names are not keywords.
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one server wants spelled differently."""

    max_tokens_field: str = "max_tokens"
    strict: bool = False  # ask for json_schema with strict: true, schema cut down to fit
    schema_in_prompt: bool = False  # response_format is ignored there: say it in words
    stream_usage: bool = True  # stream_options.include_usage is understood
    sends_seed: bool = True
    reasoning: bool = False  # no temperature, and room to think
    extra: dict[str, Any] = field(default_factory=dict)  # added to every request as it is


def dialect_for(name: str, base_url: str, model: str) -> Dialect:
    """Return the dialect of a provider; the plain one for unknown servers.

    By the address for what is called ``openai``, which may be any server of that protocol.
    """
    host = urlsplit(base_url).hostname or ""
    if host == "api.openai.com":
        return Dialect(
            max_tokens_field="max_completion_tokens",
            strict=True,
            reasoning=_REASONING.match(model) is not None,
        )
    if name == "perplexity" or host == "api.perplexity.ai":
        return Dialect(stream_usage=False, sends_seed=False)  # usage comes with every chunk
    if name == "gemini" or host == "generativelanguage.googleapis.com":
        return Dialect(sends_seed=False)  # not among the fields its compatible endpoint lists
    return Dialect()


def most_tokens(max_tokens: int, dialect: Dialect) -> int:
    """Return how many tokens an answer may have in all, with those that are only thought."""
    return max_tokens + (_ROOM_TO_THINK if dialect.reasoning else 0)


def spell(request: ModelRequest, model: str, dialect: Dialect) -> dict[str, Any]:
    """Return the JSON body of the request in this dialect."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "stream": True,
        dialect.max_tokens_field: most_tokens(request.max_tokens, dialect),
    }
    if dialect.reasoning:
        body["reasoning_effort"] = "low"
    else:
        body["temperature"] = request.temperature
        if request.seed is not None and dialect.sends_seed:
            body["seed"] = request.seed
    if dialect.stream_usage:
        body["stream_options"] = {"include_usage": True}
    if request.schema is not None:
        if dialect.schema_in_prompt:
            told = {"role": "system", "content": schema_in_words(request.schema)}
            body["messages"] = [told, *body["messages"]]
        else:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": described_schema(request, dialect),
            }
    return body | dialect.extra


def described_schema(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """Return the request's schema with its name, and with ``strict`` where that is understood."""
    schema = request.schema or {}
    # The name is free text for a flow's author, and a 400 for OpenAI unless it is an identifier.
    name = re.sub(r"[^A-Za-z0-9_-]", "_", request.schema_name)[:64] or "answer"
    described: dict[str, Any] = {"name": name, "schema": schema}
    if dialect.strict:
        strictly = not has_free_keys(schema)
        described["strict"] = strictly
        if strictly:
            described["schema"] = strict_schema(schema)
    return described


def schema_in_words(schema: dict[str, Any]) -> str:
    """Return what a model is told that takes no schema."""
    text = json.dumps(schema, ensure_ascii=False)
    return (
        "Answer with one JSON value and nothing else: no code fence, no comment. "
        f"It must satisfy this JSON schema:\n{text}"
    )


def has_free_keys(schema: Any) -> bool:
    """Whether some object in the schema has keys that are not known beforehand (a dict)."""
    if isinstance(schema, list):
        return any(has_free_keys(item) for item in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("additionalProperties", False) is not False:
        return True
    if schema.get("type") == "object" and "properties" not in schema:
        return True
    return any(has_free_keys(value) for value in schema.values())


def strict_schema(schema: Any) -> Any:
    """Return the schema as OpenAI's strict mode wants it: all keys required, no others."""
    if isinstance(schema, list):
        return [strict_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        key: (
            {name: strict_schema(inner) for name, inner in value.items()}
            if key in _NAMED_SCHEMAS and isinstance(value, dict)
            else strict_schema(value)
        )
        for key, value in schema.items()
        if key not in _NOT_IN_STRICT
    }
    if "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict["additionalProperties"] = False
    return strict

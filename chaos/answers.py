"""What the scripted provider says: a pure function of its seed and of what it was asked.

The judge computes the same answers again, so it knows what every session must end with. Turns after
the first question (a repair) do not change the answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_WORDS = (  # noqa: SIM905 - reads better than twenty strings
    "relay sash runner hill river bridge harbour morning mountain signal station stone path wind "
    "駅伝 たすき 走者 中継所 箱根 夜明け"
).split()
_KEY = re.compile(r"\[key ([^\]]+)\]")
_TEXT_WORDS = 48


def question_of(messages: list[dict[str, str]]) -> str:
    """Return the question itself: the first thing the user said."""
    return next((m["content"] for m in messages if m["role"] == "user"), "")


def key_of(question: str) -> str:
    """Return the session key that a chaos flow writes into each question."""
    found = _KEY.search(question)
    return found[1] if found else ""


def question_hash(pairs: list[list[str]], schema: Any) -> str:
    """Return the SHA-256 of the canonical question: its turns and the schema asked for."""
    canonical = json.dumps([pairs, schema], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "backslashreplace")).hexdigest()


def answer(seed: int, question: str, schema: dict[str, Any] | None) -> str:
    """Return the text of the answer: JSON that fits the schema, or a signed plain text."""
    if schema is None:
        return sign(" ".join(_word(seed, question, str(n)) for n in range(_TEXT_WORDS)))
    value = _fill(seed, question, schema, schema, "$")
    return json.dumps(value, ensure_ascii=False)


def sign(text: str) -> str:
    """Return the text with a checksum at its end, so that a damaged one is known."""
    return f"{text} [{hashlib.sha256(text.encode()).hexdigest()[:8]}]"


def is_signed(text: str) -> bool:
    """Whether the text is whole."""
    body, _, _ = text.rpartition(" [")
    return bool(body) and sign(body) == text


def _number(seed: int, question: str, path: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{question}\0{path}".encode("utf-8", "backslashreplace"))
    return int.from_bytes(digest.digest()[:8], "big")


def _word(seed: int, question: str, path: str) -> str:
    return _WORDS[_number(seed, question, path) % len(_WORDS)]


def _fill(seed: int, question: str, schema: Any, root: dict[str, Any], path: str) -> Any:
    """Make a value that fits the schema. By path, so the order of keys does not matter."""

    def inner(part: Any, name: object) -> Any:
        return _fill(seed, question, part, root, f"{path}.{name}")

    number = _number(seed, question, path)
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _fill(seed, question, target, root, path)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return inner(schema[several][0], several)
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: inner(part, name) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        least, most = schema.get("minItems", 1), schema.get("maxItems", 4)
        count = least + number % (max(most, least) - least + 1)
        return [inner(schema.get("items", {}), n) for n in range(count)]
    if kind in {"integer", "number"}:
        return _bounded(number, schema)
    if kind == "boolean":
        return number % 2 == 0
    if kind == "null":
        return None
    return _string(seed, question, path, schema)


def _bounded(number: int, schema: dict[str, Any]) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1000) - 1)
    return int(low) + number % max(1, int(high) - int(low) + 1)


def _string(seed: int, question: str, path: str, schema: dict[str, Any]) -> str:
    least, most = schema.get("minLength", 1), schema.get("maxLength", 60)
    words, n = "", 0
    while len(words) < max(least, min(most, 24)):
        words += ("" if not words else " ") + _word(seed, question, f"{path}/{n}")
        n += 1
    return words[:most].strip().ljust(least, "x")

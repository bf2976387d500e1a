"""Request bodies: bounded, and JSON that PostgreSQL can keep as it came."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from ekiden.api.problems import Refusal, invalid
from ekiden.schemas import Field

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH = 64
INT64_MAX = 2**63 - 1
_MAX_PROBLEMS = 20
_OWN_THREAD = 256 * 1024  # bytes from which parsing would hold up everybody else

# What stands for an integer that neither PostgreSQL nor the peers of JSON keep exactly.
_TOO_BIG = math.inf

Path = tuple["Path | None", "str | int"]


class BodyTooLarge(Exception):
    """More bytes came than are taken."""


class Disconnected(Exception):
    """The client left in the middle of its request."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read a request's body, however it is framed, up to ``limit`` bytes.

    Raises:
        BodyTooLarge: it is longer.
        Disconnected: it did not end.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def json_of(request: Request) -> Any:
    """Return the request's body as JSON, or None when it has none.

    Raises:
        Refusal: 400 when it is not JSON, 422 when it holds what cannot be stored.
    """
    body = await request.body()
    if not body.strip():
        return None
    if len(body) > _OWN_THREAD:
        return await asyncio.to_thread(parse_json, body)
    return parse_json(body)


def parse_json(body: bytes) -> Any:
    """Parse JSON and refuse what would not survive storing.

    Raises:
        Refusal: 400 when it is not JSON, 422 when it holds what cannot be stored.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_int=_integer, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Refusal(400, "malformed-json", f"The body is not JSON: {reason}.") from None
    # Raw control characters and surrogates are no JSON; only an escape can bring one in.
    if problems := _unstorable(value, strings=b"\\u" in body):
        raise invalid(problems)
    return value


def _integer(digits: str) -> int | float:
    if len(digits) > 20:  # before int(), which is slow on very long ones
        return _TOO_BIG
    number = int(digits)
    return number if -INT64_MAX - 1 <= number <= INT64_MAX else _TOO_BIG


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _too_deep() -> Refusal:
    return Refusal(
        422, "too-deep", f"The body is nested deeper than {MAX_DEPTH} levels.", fields=[]
    )


def _unstorable(root: Any, *, strings: bool) -> list[Field]:
    """Return the fields that hold what cannot be stored; without recursion."""
    problems: list[Field] = []
    stack: list[tuple[Any, Path | None, int]] = [(root, None, 0)]
    while stack and len(problems) < _MAX_PROBLEMS:
        value, path, depth = stack.pop()
        if isinstance(value, str):
            if strings and (reason := unstorable_text(value)):
                problems.append((_dotted(path), reason))
        elif isinstance(value, float):
            if not math.isfinite(value):
                problems.append((_dotted(path), "is a number too large to be kept"))
        elif isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                raise _too_deep()
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in inner:
                if strings and isinstance(key, str) and (reason := unstorable_text(key)):
                    problems.append((_dotted((path, key)), f"its name {reason}"))
                if isinstance(item, str | float | dict | list):
                    stack.append((item, (path, key), depth + 1))
    return problems


def unstorable_text(text: str) -> str | None:
    """Say why a text cannot be stored, or return None."""
    if "\0" in text:
        return "contains a NUL character, which PostgreSQL cannot keep"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which is no text"
    return None


def _dotted(path: Path | None) -> str:
    parts: list[str] = []
    while path is not None:
        path, key = path
        parts.append(str(key).replace("\0", "\\u0000"))
    return ".".join(reversed(parts))


def fit(model: type[M], value: Any) -> M:
    """Return ``value`` as ``model``.

    Raises:
        Refusal: 422, naming each field that does not fit.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(
            [(".".join(str(part) for part in e["loc"]), _said(e["msg"])) for e in error.errors()]
        ) from None


def _said(message: str) -> str:
    return "is not known here" if message == "Extra inputs are not permitted" else message

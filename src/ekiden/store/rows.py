"""Rows become records. Columns that hold JSON text are decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

import asyncpg
import orjson

R = TypeVar("R")

_JSON = {
    "input", "error", "flow_phases", "phases", "input_schema", "output", "request", "result",
    "body", "sources", "data", "stop", "gates", "models", "output_schemas", "logs",
}  # fmt: skip


# orjson makes floats of integers beyond 64 bits, and refuses what is no float.
_LONG_INTEGER = re.compile("[0-9]{19}")


def decoded(text: str) -> Any:
    """Return the value of stored JSON, integers of any length as they are."""
    return json.loads(text) if _LONG_INTEGER.search(text) else orjson.loads(text)


def decode(kind: type[R], row: Mapping[str, Any] | asyncpg.Record) -> R:
    """Make a record of a row; columns that hold JSON text are decoded."""
    return kind(
        **{
            key: decoded(value) if key in _JSON and isinstance(value, str) else value
            for key, value in row.items()
        }
    )


def in_order(kind: type[R], row: tuple[Any, ...]) -> R:
    """Make a record of a row within a row: its values have no names, but the record's order."""
    names = (field.name for field in fields(cast("Any", kind)))
    return decode(kind, dict(zip(names, row, strict=True)))

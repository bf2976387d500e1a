"""Turns what models, sources and people wrote into text that is safe and readable in a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

# Model output is hostile text: an escape sequence could rewrite the screen that an approval is
# decided on, and the bidirectional controls can show a line as something it is not.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_INDENT = "  "


def clean(text: str) -> str:
    """Return text without anything that steers a terminal; line breaks and tabs stay."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str, limit: int = 200) -> str:
    """Return text as one line of at most ``limit`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def readable(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines that show a JSON value to a person."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{clean(str(key))}:", inner, indent)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value, 1):
            yield from _entry(f"{number}.", inner, indent)
    else:
        for line in _plain(value).splitlines() or [""]:
            yield indent + line


def _entry(label: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        lines = list(readable(value, indent + _INDENT))
        if label[:1].isdigit():  # a list's number stands on the first line of what it numbers
            lines[0] = f"{indent}{label} {lines[0].lstrip()}"
            yield from lines
        else:
            yield indent + label
            yield from lines
        return
    first, *rest = _plain(value).splitlines() or [""]
    yield f"{indent}{label} {first}".rstrip()
    for line in rest:
        yield indent + _INDENT + line


def _plain(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return clean(value)
        case [] | {}:
            return "none"
        case _:
            return str(value)


def seconds(value: float) -> str:
    """Return a duration for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago that was, in one unit."""
    past = max(0.0, (now - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if past >= size:
            return f"{past / size:.0f} {unit} ago"
    return "just now" if past < 5 else f"{past:.0f} s ago"


def camel(record: Any) -> Any:
    """Return records as JSON values, their names in camelCase.

    What HTTP shows as well is dumped from the API's own models, so that it has the same names.
    """
    from dataclasses import fields, is_dataclass

    if is_dataclass(record) and not isinstance(record, type):
        return {_camel(f.name): camel(getattr(record, f.name)) for f in fields(record)}
    if isinstance(record, list | tuple):
        return [camel(item) for item in record]
    return record


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def to_json(value: Any) -> str:
    """Return one line of JSON; times as ISO text in UTC, decimals as numbers."""
    import orjson

    def other(item: Any) -> Any:
        from datetime import timedelta
        from decimal import Decimal

        if isinstance(item, Decimal):
            return float(item)
        if isinstance(item, timedelta):
            return round(item.total_seconds() * 1000)
        return str(item)

    try:
        return orjson.dumps(value, default=other, option=orjson.OPT_UTC_Z).decode()
    except orjson.JSONEncodeError:  # a lone surrogate somewhere
        import json

        return json.dumps(value, default=other)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, its columns as wide as need be."""
    from rich.cells import cell_len

    cells = [[one_line(cell, 60) for cell in row] for row in [head, *rows]]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(cell + " " * (widths[i] - cell_len(cell)) for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]

"""The difference between two attempts of a task: what was asked and answered, call by call."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_LINES = 2000  # of a text that are compared: the comparison is quadratic
_LONGEST = 400  # characters of a line that are compared as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call, as far as it is compared."""

    id: int
    number: int
    outcome: str
    error: str | None
    request: bytes
    answer: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The calls of two attempts with one number; one may be missing."""

    number: int
    before: Asked | None
    after: Asked | None
    request: list[str]  # a unified diff; empty when nothing differs
    answer: list[str]


def compare(before: Sequence[Asked], after: Sequence[Asked]) -> list[Difference]:
    """Compare the calls of two attempts, the first with the first and so on."""
    ours, theirs = _by_number(before), _by_number(after)
    return [
        Difference(
            number=number,
            before=(one := ours.get(number)),
            after=(other := theirs.get(number)),
            request=difference(one.request if one else b"", other.request if other else b""),
            answer=difference((one and one.answer) or b"", (other and other.answer) or b""),
        )
        for number in sorted({*ours, *theirs})
    ]


def _by_number(calls: Sequence[Asked]) -> dict[int, Asked]:
    found: dict[int, Asked] = {}
    for call in calls:
        # A call that broke off and was fetched later has two rows; the one with the answer counts.
        if call.number not in found or call.answer is not None:
            found[call.number] = call
    return found


def difference(before: bytes, after: bytes) -> list[str]:
    """Return a unified diff of two texts, JSON laid out; empty when they are equal."""
    if before == after:
        return []
    return list(
        difflib.unified_diff(readable(before), readable(after), "before", "after", n=2, lineterm="")
    )


def readable(data: bytes) -> list[str]:
    """Return bytes as lines a person can compare: JSON laid out, long lines cut into several."""
    text = data.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=1)
    # Line breaks within a prompt are where a person would look for a change.
    lines = text.replace("\\n", "\n").splitlines()[:_LINES]
    return [
        line[start : start + _LONGEST]
        for line in lines
        for start in range(0, max(len(line), 1), _LONGEST)
    ][:_LINES]

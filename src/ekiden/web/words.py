"""What the checks of an input say, in the reader's language."""

from __future__ import annotations

import re

from ekiden.web.texts import Speech, load_texts

# The sentences of ekiden.schemas, and the texts they are told by.
_RULES = tuple(
    (re.compile(pattern), key)
    for pattern, key in (
        (r"must be (?:a whole number|a number)", "form.not-a-number"),
        (r"is required", "check.required"),
        (r"is required to reject an output", "check.note"),
        (r"is a reserved name", "check.reserved"),
        (r"is not known here", "check.unknown"),
        (r"must be one of: (?P<a>.*)", "check.one-of"),
        (r"must have at least (?P<a>\d+) characters", "check.min-length"),
        (r"must have at most (?P<a>\d+) characters", "check.max-length"),
        (r"String should have at most (?P<a>\d+) characters", "check.max-length"),  # pydantic's
        (r"must have at least (?P<a>\d+) items", "check.min-items"),
        (r"must have at most (?P<a>\d+) items", "check.max-items"),
        (r"must be at least (?P<a>\S+)", "check.minimum"),
        (r"must be at most (?P<a>\S+)", "check.maximum"),
        (r"must match (?P<a>.*)", "check.pattern"),
    )
)


def told_in(t: Speech, message: str) -> str:
    """Return what is wrong with a field in the reader's language, or as it was said."""
    if message in load_texts():
        return t(message)
    for pattern, key in _RULES:
        if match := pattern.fullmatch(message):
            return t(key, a=next(iter(match.groups()), ""))
    return message

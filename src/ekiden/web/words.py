"""What the checks of an input say, in the reader's language."""

from __future__ import annotations

import re

from ekiden.schemas import TYPES
from ekiden.web.texts import Speech, load_texts

_TYPES = {name: f"type.{kind}" for kind, name in TYPES.items()}
_TYPE = re.compile("|".join(_TYPES))
_OF_TYPES = re.compile(f"must be (?:{_TYPE.pattern})(?: or (?:{_TYPE.pattern}))*")

# The sentences of ekiden.schemas and ekiden.api.limits, and the texts they are told by.
_RULES = tuple(
    (re.compile(pattern, re.DOTALL), key)
    for pattern, key in (
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
        (r"must have at least (?P<a>\d+) fields", "check.min-fields"),
        (r"must have at most (?P<a>\d+) fields", "check.max-fields"),
        (r"must be at least (?P<a>\S+)", "check.minimum"),
        (r"must be at most (?P<a>\S+)", "check.maximum"),
        (r"must be more than (?P<a>\S+)", "check.more-than"),
        (r"must be less than (?P<a>\S+)", "check.less-than"),
        (r"must be a multiple of (?P<a>\S+)", "check.multiple"),
        (r"must match (?P<a>.*)", "check.pattern"),
        (r"must be (?P<a>.*)", "check.const"),
        (r"fits none of the forms that are allowed", "check.no-form"),
        (r"does not fit the rule '(?P<a>.*)'", "check.rule"),
        (r"is a number too large to be kept", "check.too-large"),
        (r"(?:its name )?contains (?:a NUL character|half of a surrogate pair), .*",
         "check.unstorable"),
        (r"is no version of this output", "check.no-version"),
        (r"is no time", "check.no-time"),
    )
)  # fmt: skip


def told_in(t: Speech, message: str) -> str:
    """Return what is wrong with a field in the reader's language, or as it was said."""
    if message in load_texts():
        return t(message)
    if _OF_TYPES.fullmatch(message):
        types = [t(_TYPES[name]) for name in _TYPE.findall(message)]
        return t("check.type", a=t("word.or").join(types))
    for pattern, key in _RULES:
        if match := pattern.fullmatch(message):
            return t(key, a=next(iter(match.groups()), ""))
    return message

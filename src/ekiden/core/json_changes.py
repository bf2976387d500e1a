"""What differs between two JSON values: paths that were added, removed or replaced. Pure.

Lists are compared by what their elements are, not by where they stand: one that was put in front
makes one line, not as many as follow. The operations have the words of RFC 6902; its paths are JSON
Pointers (RFC 6901).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

_MANY = 2000  # elements from which lists are compared position by position


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference."""

    op: str  # add, remove or replace
    path: str  # JSON Pointer: into the old value for remove and replace, into the new one for add
    old: Any = None
    new: Any = None


def compare(old: Any, new: Any) -> list[Change]:
    """Return what was changed to get from one value to the other, in the order of the paths."""
    return list(_compare(old, new, ""))


def _compare(old: Any, new: Any, path: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            at = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                yield Change(op="remove", path=at, old=old[key])
            elif key not in old:
                yield Change(op="add", path=at, new=new[key])
            else:
                yield from _compare(old[key], new[key], at)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(old, new, path)
    elif type(old) is not type(new) or old != new:
        yield Change(op="replace", path=path, old=old, new=new)


def _lists(old: list[Any], new: list[Any], path: str) -> Iterator[Change]:
    if max(len(old), len(new)) > _MANY:
        blocks = [("replace", 0, len(old), 0, len(new))]
    else:
        keys = [[_key(e) for e in side] for side in (old, new)]
        matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
        blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    for _, a, b, c, d in blocks:
        both = min(b - a, d - c)  # what was replaced is compared part by part
        for n in range(both):
            yield from _compare(old[a + n], new[c + n], f"{path}/{a + n}")
        for n in range(a + both, b):
            yield Change(op="remove", path=f"{path}/{n}", old=old[n])
        for n in range(c + both, d):
            yield Change(op="add", path=f"{path}/{n}", new=new[n])


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)

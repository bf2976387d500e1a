"""What is different between two versions of an output, for people: where, and word by word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from markupsafe import Markup

from ekiden.core.json_changes import Change, compare
from ekiden.web.texts import Speech
from ekiden.web.visible import visible

MOST_CHANGES = 40
_LONGEST = 3000  # characters of a text that is compared word by word, and of one that is shown
_UNIT = re.compile(r"[A-Za-z0-9_'’]+|\s+|.", re.DOTALL)  # a word, or one character of Japanese


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeShown:
    """One difference."""

    where: str
    html: Markup  # <del> and <ins> around what went and what came


def changes(old: Any, new: Any, t: Speech) -> tuple[list[ChangeShown], int]:
    """Return the first differences, and how many there are beyond them."""
    found = compare(old, new)
    shown = [ChangeShown(where=_where(c.path, t), html=_html(c)) for c in found[:MOST_CHANGES]]
    return shown, len(found) - len(shown)


def _where(path: str, t: Speech) -> str:
    parts = [p.replace("~1", "/").replace("~0", "~") for p in path.split("/")[1:]]
    return " › ".join(
        str(int(p) + 1) if p.isdecimal() else t.maybe(f"field.{p}", p.replace("_", " "))
        for p in parts
    )


def _html(change: Change) -> Markup:
    old, new = _text(change.old), _text(change.new)
    texts = isinstance(change.old, str) and isinstance(change.new, str)
    if texts and max(len(old), len(new)) < _LONGEST:
        return Markup("").join(_words(old, new))
    gone = Markup("<del>{}</del> ").format(visible(old)) if change.op != "add" else Markup("")
    came = Markup("<ins>{}</ins>").format(visible(new)) if change.op != "remove" else Markup("")
    return gone + came


def _words(old: str, new: str) -> Iterator[Markup]:
    a, b = _UNIT.findall(old), _UNIT.findall(new)
    for op, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            yield visible("".join(a[i:j]))
            continue
        if i < j:
            yield Markup("<del>{}</del>").format(visible("".join(a[i:j])))
        if k < m:
            yield Markup("<ins>{}</ins>").format(visible("".join(b[k:m])))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

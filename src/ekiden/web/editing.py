"""An output as a form: each text, number and choice of it a field, its shape as it is.

A field is named by the JSON Pointer (RFC 6901) of its value. What the form does not show (ids,
sources, what lies too deep) stays exactly as it was, and so does what nobody has changed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ekiden.api.limits import parse_json
from ekiden.api.problems import Refusal
from ekiden.web.texts import Speech

MOST_LEAVES = 300
_MOST_DEPTH = 6
_LONG = 80  # characters from which a text gets more than one line
_NOT_BY_HAND = {"id", "sources", "url", "searched"}
_HEADS = ("title", "name", "hook", "query")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One value."""

    name: str  # its JSON Pointer, also the name of the field
    label: str
    kind: str  # text, long, number, flag, lines, choice
    value: str
    longest: int | None
    choices: list[str]
    problems: list[str]

    @property
    def id(self) -> str:
        """What labels and links point at."""
        return "edit" + self.name.replace("/", "-").replace("~", "_")

    @property
    def rows(self) -> int:
        """How many lines it wants."""
        return max(2, min(14, self.value.count("\n") + len(self.value) // 60 + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An object, or a list of them, with what can be edited in it."""

    label: str
    parts: list[Leaf | Group] = field(default_factory=list)


class _Maker:
    def __init__(
        self,
        schema: dict[str, Any],
        t: Speech,
        given: Mapping[str, str] | None,
        problems: Iterable[tuple[str, str]],
    ) -> None:
        self._root = schema
        self._t = t
        self._given = given
        self._problems = list(problems)
        self.left = MOST_LEAVES

    def group(self, value: Any, label: str, at: str, schema: dict[str, Any], depth: int) -> Group:
        parts: list[Leaf | Group] = []
        schema = self._plain(schema)
        items: list[tuple[str, Any, str, dict[str, Any]]]
        if isinstance(value, dict):
            of = schema.get("properties", {})
            items = [(k, v, self._label(k), of.get(k, {})) for k, v in value.items()]
        else:
            inner = schema.get("items", {})
            items = [(str(n), v, self._numbered(v, n), inner) for n, v in enumerate(value)]
        for key, item, name, spec in items:
            if key in _NOT_BY_HAND or key.endswith("_id") or depth > _MOST_DEPTH:
                continue
            pointer = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            kind = _kind(item)
            if kind is None:
                if isinstance(item, dict | list) and item:
                    found = self.group(item, name, pointer, spec, depth + 1)
                    if found.parts:
                        parts.append(found)
            elif self.left > 0:
                self.left -= 1
                parts.append(self._leaf(pointer, name, kind, item, self._plain(spec)))
        return Group(label=label, parts=parts)

    def _leaf(self, at: str, label: str, kind: str, value: Any, spec: dict[str, Any]) -> Leaf:
        typed = None if self._given is None else self._given.get(at)
        if kind == "flag" and self._given is not None and f"{at}?" in self._given:
            typed = self._given.get(
                at, ""
            )  # the form had it: a box that is not ticked sends nothing
        choices = [c for c in spec.get("enum", ()) if isinstance(c, str)]
        if choices and kind == "text":
            kind = "choice"
        dotted = at[1:].replace("/", ".").replace("~1", "/").replace("~0", "~")
        return Leaf(
            name=at,
            label=label,
            kind=kind,
            value=_shown(value, kind) if typed is None else typed,
            longest=spec.get("maxLength"),
            choices=choices,
            problems=[
                said
                for path, said in self._problems
                if path == dotted or (kind == "lines" and path.startswith(f"{dotted}."))
            ],
        )

    def _label(self, name: str) -> str:
        return self._t.maybe(f"field.{name}", name.replace("_", " ").capitalize())

    def _numbered(self, value: Any, number: int) -> str:
        head = value if isinstance(value, dict) else {}
        title = next((head[k] for k in _HEADS if isinstance(head.get(k), str)), "")
        return f"{number + 1}. {title[:80]}" if title else f"{number + 1}"

    def _plain(self, spec: Any) -> dict[str, Any]:
        found: dict[str, Any] = spec if isinstance(spec, dict) else {}
        for _ in range(8):
            reference = found.get("$ref")
            if not (isinstance(reference, str) and reference.startswith("#/$defs/")):
                break
            found = self._root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return found


def form_of(
    output: Any,
    schema: dict[str, Any] | None,
    t: Speech,
    *,
    given: Mapping[str, str] | None = None,
    problems: Iterable[tuple[str, str]] = (),
) -> Group | None:
    """Return an output as a form, or None when nothing in it can be edited field by field.

    Args:
        output: the JSON value.
        schema: of the phase's output, for the bounds; None when it is not known.
        t: the language of the labels.
        given: what was typed before.
        problems: dotted paths and what is wrong there.
    """
    if not isinstance(output, dict | list):
        return None
    maker = _Maker(schema or {}, t, given, problems)
    group = maker.group(output, "", "", schema or {}, 0)
    return group if group.parts and maker.left > 0 else None


def edited(output: Any, given: Mapping[str, str]) -> tuple[Any, list[tuple[str, str]]]:
    """Return the output with what was typed, and what of that could not be read.

    Args:
        output: as the form was made from it.
        given: the form; names that are no place in the output are not looked at.
    """
    problems: list[tuple[str, str]] = []
    changed = copy.deepcopy(output)
    for pointer, holder, key, value in list(_places(changed, "", 0)):
        kind = _kind(value)
        if kind == "flag":
            if f"{pointer}?" in given:  # the form had it: a box that is not ticked sends nothing
                holder[key] = bool(given.get(pointer))
        elif kind is not None and pointer in given and given[pointer] != _shown(value, kind):
            try:
                holder[key] = _value(given[pointer], kind)
            except Refusal:
                problems.append((pointer[1:].replace("/", "."), "form.not-a-number"))
    return changed, problems


def _places(value: Any, at: str, depth: int) -> Iterable[tuple[str, Any, Any, Any]]:
    if depth > _MOST_DEPTH + 1:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        pointer = f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}"
        yield pointer, value, key, item
        if isinstance(item, dict | list) and _kind(item) is None:
            yield from _places(item, pointer, depth + 1)


def _kind(value: Any) -> str | None:
    match value:
        case bool():
            return "flag"
        case str():
            return "long" if len(value) > _LONG or "\n" in value else "text"
        case int() | float():
            return "number"
        case [*items] if items and all(isinstance(i, str) and "\n" not in i for i in items):
            return "lines"
        case _:
            return None


def _shown(value: Any, kind: str) -> str:
    match kind:
        case "flag":
            return "on" if value else ""
        case "lines":
            return "\n".join(value)
        case "number":
            return json.dumps(value)
        case _:
            return str(value)


def _value(text: str, kind: str) -> Any:
    match kind:
        case "lines":
            return [line.strip() for line in text.split("\n") if line.strip()]
        case "number":
            return parse_json(text.strip().encode())
        case _:
            return text

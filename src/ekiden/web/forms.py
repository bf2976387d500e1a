"""Forms from JSON Schema, and JSON from forms.

Text, numbers, choices, yes or no and lists of texts get a field of their own; anything deeper is
edited as JSON. The fields carry the schema's bounds as hints for the browser; what counts is the
check on the server, whose problems come back beside the fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ekiden.api.limits import parse_json
from ekiden.api.problems import Refusal
from ekiden.web.texts import Speech

PREFIX = "f."  # before the names of fields that come from the schema
_LONG = 120  # characters from which a text gets more than one line
_MOST_FIELDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form."""

    name: str
    label: str
    help: str
    kind: str  # text, long, number, choice, flag, lines, json
    required: bool
    value: str
    example: str
    choices: list[str]
    longest: int | None
    least: float | None
    most: float | None
    step: str
    problems: list[str]


def fields_of(
    schema: dict[str, Any],
    t: Speech,
    *,
    given: Mapping[str, str] | None = None,
    value: Mapping[str, Any] | None = None,
    problems: Iterable[tuple[str, str]] = (),
) -> list[Field]:
    """Return the fields of an object's schema.

    Args:
        schema: of the object.
        t: the language of labels, where the schema has it.
        given: what was typed before, by the names of the form; over ``value``.
        value: the object to edit; else the schema's defaults are shown.
        problems: dotted path and what is wrong there.
    """
    wrong = list(problems)
    found = []
    for name, raw in _properties(schema):
        spec = _plain(raw, schema)
        kind = _kind(spec, schema)
        typed = None if given is None else given.get(PREFIX + name, "")
        start = (value or {}).get(name) if value is not None else spec.get("default")
        examples = spec.get("examples") or []
        found.append(
            Field(
                name=PREFIX + name,
                label=_label(name, spec, t),
                help=str(spec.get("descriptions", {}).get(t.code) or spec.get("description", "")),
                kind=kind,
                required=name in schema.get("required", ()),
                value=typed if typed is not None else _shown(start, kind),
                example=_shown(examples[0], kind) if examples else "",
                choices=[str(c) for c in spec.get("enum", ())],
                longest=spec.get("maxLength"),
                least=spec.get("minimum"),
                most=spec.get("maximum"),
                step="1" if spec.get("type") == "integer" else "any",
                problems=[said for path, said in wrong if _within(path, name)],
            )
        )
    return found


def example_of(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return an input as the schema gives an example of it, whole or field by field, or None."""
    whole = next((e for e in schema.get("examples") or () if isinstance(e, dict)), None)
    if whole is not None:
        return whole
    specs = {name: _plain(raw, schema) for name, raw in _properties(schema)}
    if not any(spec.get("examples") for spec in specs.values()):
        return None
    return {
        name: spec["examples"][0] if spec.get("examples") else spec["default"]
        for name, spec in specs.items()
        if spec.get("examples") or spec.get("default") is not None
    }


def _properties(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the properties, required ones first: the database keeps no order of its own."""
    required = schema.get("required", ())
    found = list(schema.get("properties", {}).items())[:_MOST_FIELDS]
    return sorted(found, key=lambda item: item[0] not in required)


def _within(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def elsewhere(problems: Iterable[tuple[str, str]], schema: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the problems that no field of the form stands for."""
    names = schema.get("properties", {})
    return [(path, said) for path, said in problems if path.partition(".")[0] not in names]


def read_form(
    schema: dict[str, Any], given: Mapping[str, str]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the object that a form stands for, and what in it could not even be read.

    A field that was left empty is left out, so that the schema's default or its ``required``
    decides; whether the rest fits is checked like any other input.
    """
    out: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for name, raw in _properties(schema):
        spec = _plain(raw, schema)
        kind = _kind(spec, schema)
        text = given.get(PREFIX + name, "")
        if kind == "flag":
            out[name] = bool(text)
            continue
        if not text.strip():
            continue
        try:
            out[name] = _value(text, kind, spec)
        except Refusal:
            problems.append((name, "form.not-a-number" if kind == "number" else "form.not-json"))
    return out, problems


def _value(text: str, kind: str, spec: dict[str, Any]) -> Any:
    match kind:
        case "choice":
            return next((c for c in spec["enum"] if str(c) == text), text)
        case "lines":
            return [line.strip() for line in text.split("\n") if line.strip()]
        case "json" | "number":
            return parse_json(text.strip().encode())
        case _:
            return text


def _kind(spec: dict[str, Any], root: dict[str, Any]) -> str:
    if "enum" in spec:
        return "choice"
    match spec.get("type"):
        case "string":
            return "long" if (spec.get("maxLength") or _LONG + 1) > 2 * _LONG else "text"
        case "integer" | "number":
            return "number"
        case "boolean":
            return "flag"
        case "array" if _plain(spec.get("items", {}), root).get("type") == "string":
            return "lines"
        case _:
            return "json"


def _plain(spec: Any, root: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema with its reference followed and ``or null`` taken away."""
    found: dict[str, Any] = dict(spec) if isinstance(spec, dict) else {}
    for _ in range(8):  # a reference may lead to another, never round and round
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            target = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
            found = {**target, **{k: v for k, v in found.items() if k != "$ref"}}
            continue
        branches = [b for b in found.get("anyOf", ()) if b != {"type": "null"}]
        if len(branches) == 1:
            found = {**branches[0], **{k: v for k, v in found.items() if k != "anyOf"}}
            continue
        break
    if "const" in found:
        found["enum"] = [found["const"]]
    return found


def _label(name: str, spec: dict[str, Any], t: Speech) -> str:
    titles = spec.get("titles")
    named = titles.get(t.code) if isinstance(titles, dict) else None
    known = t.maybe(f"field.{name}", "")
    return str(named or known or spec.get("title") or name.replace("_", " ").capitalize())


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return ""
    match kind:
        case "lines" if isinstance(value, list):
            return "\n".join(str(item) for item in value)
        case "flag":
            return "on" if value else ""
        case "json":
            return json.dumps(value, ensure_ascii=False, indent=2)
        case _:
            return str(value)

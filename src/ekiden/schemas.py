"""Checks values of people against the JSON Schemas that a worker registered with its flow.

The messages are ours: the library's repeat the value, which may be a megabyte or a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry

from ekiden.errors import InputInvalid

Field = tuple[str, str]  # dotted path, what is wrong with it

_MAX_PROBLEMS = 50

# What each type of JSON Schema is called.
TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
# What a rule asks for; {} is its value in the schema.
_RULES = {
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "pattern": "must match {}",
    "const": "must be {}",
    "minProperties": "must have at least {} fields",
    "maxProperties": "must have at most {} fields",
}


def check(schema: dict[str, Any], value: Any, *, what: str = "input") -> None:
    """Check a value against a schema of its flow; ``what`` is how people call it.

    Raises:
        InputInvalid: it does not fit; names each field that does not.
    """
    # An empty registry of our own: a $ref in a schema never makes the API fetch anything.
    validator = Draft202012Validator(schema, registry=Registry())
    fields: dict[Field, None] = {}  # an ordered set
    for error in validator.iter_errors(value):
        fields.update(dict.fromkeys(_described(error)))
        if len(fields) >= _MAX_PROBLEMS:
            break
    if fields:
        names = ", ".join(dict.fromkeys(name or what for name, _ in fields))
        raise InputInvalid(f"The {what} does not fit: {names}.", list(fields)[:_MAX_PROBLEMS])


def _described(error: ValidationError) -> Iterator[Field]:
    rule = str(error.validator)
    asked: Any = error.validator_value
    instance: Any = error.instance
    here = _dotted(error.absolute_path)
    match rule:
        case "required":
            for name in asked:
                if name not in instance:
                    yield _dotted([*error.absolute_path, name]), "is required"
        case "additionalProperties" | "unevaluatedProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            for name in instance:
                if name not in known:
                    yield _dotted([*error.absolute_path, name]), "is not known here"
        case "type":
            yield here, f"must be {_one_of(TYPES.get(t, t) for t in _listed(asked))}"
        case "enum":
            yield here, f"must be one of: {', '.join(str(choice) for choice in asked)}"
        case "anyOf" | "oneOf" if error.context:
            yield from _alternatives(error, here)
        case _:
            yield here, _RULES.get(rule, f"does not fit the rule {rule!r}").format(asked)


def _alternatives(error: ValidationError, here: str) -> Iterator[Field]:
    """Describe the branch that was meant: the only one whose type fits."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    wrong = [
        b for b in branches.values() if len(b) == 1 and b[0].validator == "type" and not b[0].path
    ]
    meant = [b for b in branches.values() if b not in wrong]
    if len(meant) == 1:
        for inner in meant[0]:
            yield from _described(inner)
    elif not meant:
        types = [t for b in wrong for t in _listed(b[0].validator_value)]
        yield here, f"must be {_one_of(TYPES.get(t, t) for t in types)}"
    else:
        yield here, "fits none of the forms that are allowed"


def _listed(types: Any) -> list[str]:
    return list(types) if isinstance(types, list) else [str(types)]


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(names))


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def title_of(value: dict[str, Any], schema: dict[str, Any], otherwise: str) -> str:
    """Name a session after its input: its first text, in the order of the flow's schema."""
    for name in schema.get("properties", value):
        text = value.get(name)
        if isinstance(text, str) and text.strip():
            return " ".join(text.split())[:200]
    return otherwise

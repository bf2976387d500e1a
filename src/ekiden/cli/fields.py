"""The input of a flow, out of options: ``--theme "remote work" --language ja``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ekiden.errors import InputInvalid


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split what the options left over into the flow's name and the words of its fields."""
    fields: list[str] = []
    rest = list(words)
    flow: str | None = None
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            if flow is not None:
                raise InputInvalid(
                    f"{word!r} is one word too many. Quote values with spaces: --theme "
                    '"remote work".'
                )
            flow = word
        elif "=" not in word and rest and not rest[0].startswith("--"):
            fields += [word, rest.pop(0)]
        else:
            fields.append(word)
    return flow, fields


def read_input(
    words: Sequence[str], schema: dict[str, Any], *, text: str | None, file: Path | None
) -> dict[str, Any]:
    """Return the input that options, ``--input`` and ``--input-file`` give together.

    Single options win over the JSON.

    Raises:
        InputInvalid: something cannot be read, or the flow has no such field.
    """
    given: dict[str, Any] = {}
    if file is not None:
        given |= _object(_text_of(file), "--input-file")
    if text is not None:
        given |= _object(text, "--input")
    given |= _fields(words, schema)
    return given


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputInvalid(f"--input-file {file}: {error}") from None


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputInvalid(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputInvalid(f"{option} must be a JSON object, as {{...}}")
    return value


def _fields(words: Sequence[str], schema: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = schema.get("properties", {})
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        name = _name(option, known, open_=schema.get("additionalProperties") not in (None, False))
        if not equals:
            if rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif known.get(name, {}).get("type") == "boolean":
                value = "true"
            else:
                raise InputInvalid(f"{option} needs a value: {option} VALUE")
        typed = _typed(value, known.get(name, {}))
        if name in given:  # given twice: a list
            typed = [*_listed(given[name]), *_listed(typed)]
        given[name] = typed
    return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name(option: str, known: dict[str, Any], *, open_: bool) -> str:
    wanted = option.removeprefix("--")
    for name in known:
        if name == wanted or name.replace("_", "-").lower() == wanted.replace("_", "-").lower():
            return name
    if open_:
        return wanted
    names = ", ".join(f"--{name.replace('_', '-')}" for name in known) or "none"
    raise InputInvalid(f"There is no option {option}. Fields of this flow: {names}.")


def _typed(value: str, schema: dict[str, Any]) -> Any:
    """Return lists and objects decoded; the input model itself makes numbers of text."""
    if schema.get("type") == "string" or not value.lstrip().startswith(("[", "{")):
        return [value] if schema.get("type") == "array" else value
    try:
        return json.loads(value)
    except ValueError:
        return value


def title_of(value: dict[str, Any], otherwise: str) -> str:
    """Name a session after the first text of its input."""
    for text in value.values():
        if isinstance(text, str) and text.strip():
            return " ".join(text.split())[:200]
    return otherwise

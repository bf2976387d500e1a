"""The options of a new session as a form: what is asked, and what of it does not fit, beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from ekiden.api.limits import INT64_MAX
from ekiden.core.model import StepKind

MODEL = "model."  # before the place: "model." for all, "model.1", "model.1.THINK"
_MODEL = re.compile(r"(?P<provider>[a-z][a-z0-9_-]*):\S.*")
_LONGEST_MODEL = 200
_MOST_RETRIES = 100
_MOST_DOLLARS = 1_000_000


@dataclass(slots=True)
class Read:
    """What a form says about options."""

    options: dict[str, Any] = field(default_factory=dict)  # as OptionsGiven takes them
    problems: list[tuple[str, str]] = field(default_factory=list)  # field of the form, what


def places(phases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return every place of a flow at which a model may be chosen: phases, and their steps."""
    found = []
    for number, phase in enumerate(phases, start=1):
        found += [str(number), *(f"{number}.{StepKind(kind)}" for kind in phase["steps"])]
    return found


def read_options(
    form: Mapping[str, str], phases: Sequence[Mapping[str, Any]], providers: Sequence[str]
) -> Read:
    """Read the options of a form; what is left empty is left out.

    Args:
        form: what was sent.
        phases: of the flow.
        providers: the names there are; empty when they are not known here.
    """
    read = Read()
    read.options = {
        "autoProgressSteps": bool(form.get("auto_steps")),
        "autoProgressPhases": bool(form.get("auto_phases")),
    }
    retries = _number(form, "max_retries", _MOST_RETRIES, read)
    if retries is not None:
        read.options["maxRetries"] = int(retries)
    cost = _number(form, "max_cost_usd", _MOST_DOLLARS, read, whole=False)
    tokens = _number(form, "max_tokens", INT64_MAX, read)
    if cost is not None or tokens is not None:
        read.options["budget"] = {
            "maxCostUsd": None if cost is None else float(cost),
            "maxTokens": None if tokens is None else int(tokens),
        }
    models = {}
    for place in ("", *places(phases)):
        name = f"{MODEL}{place}"
        if chosen := form.get(name, "").strip():
            read.problems += [(name, said) for said in wrong_model(chosen, providers)]
            models[place] = chosen
    if models:
        read.options["models"] = models
    return read


def wrong_model(chosen: str, providers: Sequence[str]) -> list[str]:
    """Say why a model cannot be asked by this name; nothing when it can."""
    match = _MODEL.fullmatch(chosen)
    if match is None or len(chosen) > _LONGEST_MODEL:
        return ["form.not-a-model"]
    if providers and match["provider"] not in providers:
        return [f"must be one of: {', '.join(f'{p}:…' for p in providers)}"]
    return []


def _number(
    form: Mapping[str, str], name: str, most: int, read: Read, *, whole: bool = True
) -> Decimal | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or (whole and value != value.to_integral_value()):
        read.problems.append((name, "form.not-whole" if whole else "form.not-a-number"))
        return None
    if 0 <= value <= most:
        return value
    read.problems.append((name, "must be at least 0" if value < 0 else f"must be at most {most}"))
    return None

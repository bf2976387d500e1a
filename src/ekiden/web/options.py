"""The options of a new session as a form: what is asked, and what of it does not fit, beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from ekiden.api.limits import INT64_MAX
from ekiden.core.model import Budget, StepKind

MODEL = "model."  # before the place: "model." for all, "model.1", "model.1.THINK"
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+")  # a whole number as people write a long one
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
    retries = _number(form, "max_retries", _MOST_RETRIES, read.problems)
    if retries is not None:
        read.options["maxRetries"] = int(retries)
    budget = read_budget(form, read.problems)
    if budget != Budget():
        cost = budget.max_cost_usd
        read.options["budget"] = {
            "maxCostUsd": None if cost is None else float(cost),
            "maxTokens": budget.max_tokens,
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


def read_budget(form: Mapping[str, str], problems: list[tuple[str, str]]) -> Budget:
    """Return the budget of a form, and add what is wrong with each of its fields."""
    cost = _number(form, "max_cost_usd", _MOST_DOLLARS, problems, whole=False)
    tokens = _number(form, "max_tokens", INT64_MAX, problems)
    return Budget(max_cost_usd=cost, max_tokens=None if tokens is None else int(tokens))


def wrong_model(chosen: str, providers: Sequence[str]) -> list[str]:
    """Say why a model cannot be asked by this name; nothing when it can."""
    match = _MODEL.fullmatch(chosen)
    if match is None or len(chosen) > _LONGEST_MODEL:
        return ["form.not-a-model"]
    if providers and match["provider"] not in providers:
        return [f"must be one of: {', '.join(f'{p}:…' for p in providers)}"]
    return []


def _number(
    form: Mapping[str, str],
    name: str,
    most: int,
    problems: list[tuple[str, str]],
    *,
    whole: bool = True,
) -> Decimal | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    # Of an amount "1,250" may be one and a quarter: then nobody knows but who wrote it.
    if whole and _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or (whole and value != value.to_integral_value()):
        problems.append((name, "form.not-whole" if whole else "form.not-an-amount"))
        return None
    if 0 <= value <= most:
        return value
    problems.append((name, "must be at least 0" if value < 0 else f"must be at most {most}"))
    return None

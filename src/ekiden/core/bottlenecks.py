"""Where the time of a flow goes: its steps, ranked by their share of machine time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ekiden.core.metrics import Fact, StepMetrics, by_step
from ekiden.core.model import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowSource:
    """The model or source of a step that takes longest."""

    name: str  # provider:model
    p95_s: float
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """A step, and what its time goes to."""

    step: StepMetrics
    share: float  # of the flow's machine time, 0 to 1
    p95_s: float
    source: SlowSource | None
    retries: float  # the share of its attempts that repeat one that went wrong, 0 to 1
    trend: float | None  # how much longer it takes than before: 0.1 is a tenth; None is unknown


def rank(facts: Iterable[Fact], before: Iterable[Fact]) -> list[Bottleneck]:
    """Return the steps that were completed, the one with the most machine time first.

    The machine time of a step is its wall time, from its first attempt to its last result: the
    tasks of a fan-out run beside each other and count once. A share is of the step's own flow.

    Args:
        facts: of a window.
        before: of the window before, for the trend.
    """
    steps = [step for step in by_step(facts) if step.wall.n]
    whole: dict[str, float] = {}
    for step in steps:
        whole[step.key.flow] = whole.get(step.key.flow, 0.0) + step.wall.seconds
    earlier = {step.key: step.wall.mean for step in by_step(before)}
    found = [
        Bottleneck(
            step=step,
            share=step.wall.seconds / whole[step.key.flow] if whole[step.key.flow] else 0.0,
            p95_s=step.wall.quantile(0.95) or 0.0,
            source=_slowest(step),
            retries=_retries(step),
            trend=_trend(step.wall.mean, earlier.get(step.key)),
        )
        for step in steps
    ]
    return sorted(found, key=lambda b: (b.step.key.flow, -b.share, b.step.key))


def _slowest(step: StepMetrics) -> SlowSource | None:
    slow = [
        SlowSource(name=name, p95_s=calls.time.quantile(0.95) or 0.0, calls=calls.time.n)
        for name, calls in step.sources.items()
    ]
    return max(slow, key=lambda s: (s.p95_s, s.name), default=None)


def _retries(step: StepMetrics) -> float:
    again = sum(step.attempts.outcomes.get(o, 0) for o in (Outcome.RETRIED, Outcome.LOST))
    return again / step.attempts.total if step.attempts.total else 0.0


def _trend(mean: float | None, before: float | None) -> float | None:
    if not mean or not before:
        return None
    return mean / before - 1

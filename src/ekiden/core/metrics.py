"""The metrics: one set of definitions, whoever asks (JSON, Prometheus, a terminal, sentences).

A **fact** is a row of ``metric_rollups``, summed over a window; everything here is sums of facts.
What each measure's seconds are is said at ``roll_up`` in store/queries/metrics.sql.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from ekiden.core.histogram import Histogram
from ekiden.core.model import CallOutcome, Outcome

K = TypeVar("K")

# Attempts that went wrong. RELEASED and CANCELLED ones were stopped, not wrong.
WRONG = frozenset({Outcome.RETRIED, Outcome.FAILED, Outcome.LOST})
WRONG_CALLS = frozenset({CallOutcome.FAILED, CallOutcome.INVALID})

_STEPS = {"THINK": 0, "EXECUTE": 1, "INTEGRATE": 2}


class Measure(StrEnum):
    """What is measured."""

    ATTEMPT = "attempt"
    WAIT = "wait"
    STEP = "step"
    SESSION = "session"
    CALL = "call"
    TOKEN = "token"  # noqa: S105 - a model's, not a secret
    HUMAN = "human"
    COMMIT = "commit"  # of all flows: one commit is of many attempts


_OF_CALLS = frozenset({Measure.CALL, Measure.TOKEN})


class Width(StrEnum):
    """How long a time one sum stands for."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    EVER = "ever"


Piece = tuple[Width, datetime, datetime]  # sums of a width, from, before

_LENGTH = {
    Width.MINUTE: timedelta(minutes=1),
    Width.HOUR: timedelta(hours=1),
    Width.DAY: timedelta(days=1),
}
_LONGER = {Width.MINUTE: Width.HOUR, Width.HOUR: Width.DAY}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Window(StrEnum):
    """How far back a question goes."""

    M15 = "15m"
    H1 = "1h"
    H6 = "6h"
    H24 = "24h"
    D7 = "7d"
    D30 = "30d"

    @property
    def length(self) -> timedelta:
        """How long it is."""
        unit = {"m": "minutes", "h": "hours", "d": "days"}[self[-1]]
        return timedelta(**{unit: int(self[:-1])})

    @property
    def width(self) -> Width:
        """What it is summed from: minutes up to six hours, hours up to a day, days beyond."""
        if self.length <= timedelta(hours=6):
            return Width.MINUTE
        return Width.HOUR if self.length <= timedelta(days=1) else Width.DAY

    def begin(self, now: datetime) -> datetime:
        """Return where it begins: its length ago, down to the full minute, hour or day (UTC)."""
        begin = (now - self.length).astimezone(UTC).replace(second=0, microsecond=0)
        match self.width:
            case Width.MINUTE:
                return begin
            case Width.HOUR:
                return begin.replace(minute=0)
            case _:
                return begin.replace(hour=0, minute=0)

    def pieces(self, since: datetime, until: datetime, *, open_end: bool) -> list[Piece]:
        """Return the sums that this time is made of: few long ones, short ones at its ends.

        Args:
            since: its begin, on a full unit of ``width``.
            until: its end.
            open_end: it ends now, so a long sum that goes on counts nothing beyond it.
        """
        longer = _LONGER.get(self.width)
        if longer is None:
            return [(self.width, since, until)]
        middle = _EPOCH - (_EPOCH - since) // _LENGTH[longer] * _LENGTH[longer]  # rounded up
        end = until if open_end else _EPOCH + (until - _EPOCH) // _LENGTH[longer] * _LENGTH[longer]
        if end <= middle:
            return [(self.width, since, until)]
        found = [(self.width, since, middle), (longer, middle, end), (self.width, end, until)]
        return [(width, begin, stop) for width, begin, stop in found if begin < stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A sum of equal events of equal length."""

    measure: str
    flow: str
    phase: int
    step: str
    source: str  # of a call: provider:model
    outcome: str
    error: str
    bucket: int
    n: int
    seconds: float
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class StepKey:
    """Which step of which flow; ordered as they run."""

    flow: str
    phase: int
    order: int
    step: str

    @classmethod
    def of(cls, fact: Fact) -> StepKey:
        """Return the step a fact belongs to."""
        return cls(flow=fact.flow, phase=fact.phase, order=_STEPS.get(fact.step, 3), step=fact.step)


@dataclass(slots=True)
class Attempts:
    """What became of attempts."""

    outcomes: dict[str, int] = field(default_factory=dict)
    run: Histogram = field(default_factory=Histogram)

    def add(self, fact: Fact) -> None:
        """Add a fact of attempts."""
        self.outcomes[fact.outcome] = self.outcomes.get(fact.outcome, 0) + fact.n
        self.run.add(fact.bucket, fact.n, fact.seconds)

    @property
    def total(self) -> int:
        """All that ended."""
        return self.run.n

    @property
    def wrong(self) -> int:
        """Those that went wrong."""
        return sum(n for outcome, n in self.outcomes.items() if outcome in WRONG)

    @property
    def error_rate(self) -> float | None:
        """Their share, 0 to 1; None of nothing."""
        return self.wrong / self.total if self.total else None


@dataclass(slots=True)
class Calls:
    """What calls took."""

    outcomes: dict[str, int] = field(default_factory=dict)
    time: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)  # of streamed ones
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0

    def add(self, fact: Fact) -> None:
        """Add a fact of calls."""
        if fact.measure == Measure.TOKEN:
            self.first_token.add(fact.bucket, fact.n, fact.seconds)
            return
        self.outcomes[fact.outcome] = self.outcomes.get(fact.outcome, 0) + fact.n
        self.time.add(fact.bucket, fact.n, fact.seconds)
        self.input_tokens += fact.input_tokens
        self.output_tokens += fact.output_tokens
        self.cost_usd += fact.cost_usd
        self.unpriced += fact.unpriced

    @property
    def wrong(self) -> int:
        """Those that failed or whose answer was of no use."""
        return sum(n for outcome, n in self.outcomes.items() if outcome in WRONG_CALLS)

    @property
    def error_rate(self) -> float | None:
        """Their share, 0 to 1; None of nothing."""
        return self.wrong / self.time.n if self.time.n else None


@dataclass(slots=True)
class StepMetrics:
    """One step of a flow, over a window."""

    key: StepKey
    attempts: Attempts = field(default_factory=Attempts)
    wait: Histogram = field(default_factory=Histogram)
    wall: Histogram = field(default_factory=Histogram)  # of the whole step, first attempt to last
    calls: Calls = field(default_factory=Calls)
    sources: dict[str, Calls] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def by_step(facts: Iterable[Fact]) -> list[StepMetrics]:
    """Return each step's metrics, in running order."""
    steps: dict[StepKey, StepMetrics] = {}
    for fact in facts:
        if not fact.step:
            continue
        key = StepKey.of(fact)
        if (step := steps.get(key)) is None:
            step = steps[key] = StepMetrics(key)
        match fact.measure:
            case Measure.ATTEMPT:
                step.attempts.add(fact)
                if fact.outcome in WRONG:
                    step.errors[fact.error] = step.errors.get(fact.error, 0) + fact.n
            case Measure.WAIT:
                step.wait.add(fact.bucket, fact.n, fact.seconds)
            case Measure.STEP:
                step.wall.add(fact.bucket, fact.n, fact.seconds)
            case Measure.CALL | Measure.TOKEN:
                step.calls.add(fact)
                step.sources.setdefault(fact.source, Calls()).add(fact)
    return [steps[key] for key in sorted(steps)]


def by_source(facts: Iterable[Fact]) -> dict[str, Calls]:
    """Return what calls to each model and source took; the one with the most time first."""
    sources: dict[str, Calls] = {}
    for fact in facts:
        if fact.measure in _OF_CALLS:
            sources.setdefault(fact.source, Calls()).add(fact)
    return dict(sorted(sources.items(), key=lambda item: -item[1].time.seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLine:
    """One kind of error at one step."""

    kind: str
    key: StepKey
    count: int
    attempts: int  # of that step, in all

    @property
    def rate(self) -> float:
        """The share of the step's attempts that ended so."""
        return self.count / self.attempts


def errors(facts: Iterable[Fact]) -> list[ErrorLine]:
    """Return the kinds of errors, the most frequent first."""
    found = [
        ErrorLine(kind=kind, key=step.key, count=count, attempts=step.attempts.total)
        for step in by_step(facts)
        for kind, count in step.errors.items()
    ]
    return sorted(found, key=lambda line: (-line.count, line.key, line.kind))


def attempts(facts: Iterable[Fact]) -> Attempts:
    """Return what became of all attempts."""
    found = Attempts()
    for fact in facts:
        if fact.measure == Measure.ATTEMPT:
            found.add(fact)
    return found


def calls(facts: Iterable[Fact]) -> Calls:
    """Return what all calls took."""
    found = Calls()
    for fact in facts:
        if fact.measure in _OF_CALLS:
            found.add(fact)
    return found


def times(facts: Iterable[Fact], measure: Measure) -> Histogram:
    """Return the durations of a measure."""
    return times_by(facts, measure, lambda _fact: None).get(None, Histogram())


def times_by(
    facts: Iterable[Fact], measure: Measure, key: Callable[[Fact], K]
) -> dict[K, Histogram]:
    """Return the durations of a measure, by what ``key`` says of a fact."""
    found: dict[K, Histogram] = {}
    for fact in facts:
        if fact.measure == measure:
            found.setdefault(key(fact), Histogram()).add(fact.bucket, fact.n, fact.seconds)
    return found

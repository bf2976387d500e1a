"""Metrics as callers are shown them. Durations in seconds, shares from 0 to 1."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from ekiden.api.shown import Shown
from ekiden.core import bottlenecks, metrics
from ekiden.core.alerts import Alert, AlertKind
from ekiden.core.histogram import PERCENTILE_ERROR, Histogram
from ekiden.core.metrics import Window
from ekiden.core.sentences import of_bottleneck, told_of
from ekiden.store.metrics import Past, Present


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


class Durations(Shown):
    """How long something took, in seconds."""

    count: int
    total: float
    mean: float | None
    p50: float | None = Field(description="percentiles are right to 4.8 %; see percentileError")
    p90: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, times: Histogram) -> Self:
        """Show a histogram."""
        return cls(
            count=times.n,
            total=round(times.seconds, 3),
            mean=_rounded(times.mean),
            p50=_rounded(times.quantile(0.5)),
            p90=_rounded(times.quantile(0.9)),
            p95=_rounded(times.quantile(0.95)),
            p99=_rounded(times.quantile(0.99)),
        )


class Windowed(Shown):
    """What time the figures are of."""

    window: Window
    flow: str | None
    since: datetime
    until: datetime
    counted_to: datetime = Field(description="what ended later is not in these figures yet")
    percentile_error: float = Field(
        round(PERCENTILE_ERROR, 4), description="how far a percentile is off at most, in proportion"
    )


class AttemptsShown(Shown):
    """Attempts that ended."""

    total: int
    outcomes: dict[str, int]
    wrong: int = Field(description="RETRIED, FAILED or LOST")
    error_rate: float | None
    run: Durations

    @classmethod
    def of(cls, found: metrics.Attempts) -> Self:
        """Show attempts."""
        return cls(
            total=found.total,
            outcomes=found.outcomes,
            wrong=found.wrong,
            error_rate=_rounded(found.error_rate),
            run=Durations.of(found.run),
        )


class CallsShown(Shown):
    """Calls to models and sources."""

    total: int
    outcomes: dict[str, int]
    wrong: int = Field(description="FAILED or INVALID")
    error_rate: float | None
    time: Durations
    first_token: Durations = Field(description="of streamed calls: until the first text")
    input_tokens: int
    output_tokens: int
    cost_usd: float
    calls_without_price: int

    @classmethod
    def of(cls, found: metrics.Calls) -> Self:
        """Show calls."""
        return cls(
            total=found.time.n,
            outcomes=found.outcomes,
            wrong=found.wrong,
            error_rate=_rounded(found.error_rate),
            time=Durations.of(found.time),
            first_token=Durations.of(found.first_token),
            input_tokens=found.input_tokens,
            output_tokens=found.output_tokens,
            cost_usd=float(found.cost_usd),
            calls_without_price=found.unpriced,
        )


class SourceShown(CallsShown):
    """Calls to one model or source."""

    source: str = Field("", description="provider:model")


class ErrorShown(Shown):
    """One kind of error at one step."""

    kind: str
    flow: str
    phase: int
    step: str
    count: int
    rate: float = Field(description="share of the step's attempts")


class QueueShown(Shown):
    """Tasks that wait to be claimed."""

    due: int
    later: int
    oldest_s: float | None = Field(description="how long the oldest due one has been due")


class WorkersShown(Shown):
    """Workers by state; those that left, for a day."""

    alive: int
    draining: int
    lost: int
    stopped: int
    busy: int
    capacity: int


class DatabaseShown(Shown):
    """How PostgreSQL is."""

    notify_queue_usage: float
    oldest_snapshot_xids: int | None
    oldest_snapshot_s: float | None
    dead_tuples: int
    live_tuples: int
    connections: int
    max_connections: int


class Now(Shown):
    """What is now."""

    queue: QueueShown
    sessions: dict[str, int] = Field(description="those that have not ended, by status")
    workers: WorkersShown
    alerts: dict[str, int] = Field(description="those that are open, by kind")
    doorbell_listening: bool | None = Field(description="of the process that answers")
    database: DatabaseShown

    @classmethod
    def of(cls, present: Present, *, listening: bool | None) -> Self:
        """Show the present."""
        count = {w.state: w.n for w in present.workers}
        here = [w for w in present.workers if w.state in {"ALIVE", "DRAINING"}]
        return cls(
            queue=QueueShown.model_validate(present),
            sessions=present.sessions,
            workers=WorkersShown(
                alive=count.get("ALIVE", 0),
                draining=count.get("DRAINING", 0),
                lost=count.get("LOST", 0),
                stopped=count.get("STOPPED", 0),
                busy=sum(w.busy for w in here),
                capacity=sum(w.capacity for w in here),
            ),
            alerts=present.alerts,
            doorbell_listening=listening,
            database=DatabaseShown.model_validate(present),
        )


class Summary(Windowed):
    """How it goes."""

    attempts: AttemptsShown
    errors: list[ErrorShown]
    wait: Durations = Field(description="from due to claimed")
    commit: Durations = Field(
        description="from sending a result until it is durable; of all flows only"
    )
    sessions: Durations = Field(description="COMPLETED sessions, from creation to end")
    human: Durations = Field(description="from the opening of a gate to its review")
    calls: CallsShown
    sources: list[SourceShown]
    now: Now

    @classmethod
    def of(
        cls,
        past: Past,
        present: Present,
        window: Window,
        flow: str | None,
        *,
        listening: bool | None = None,
    ) -> Self:
        """Show a window, and the present."""
        facts = past.facts
        return cls(
            window=window,
            flow=flow,
            since=past.since,
            until=past.until,
            counted_to=past.counted_to,
            attempts=AttemptsShown.of(metrics.attempts(facts)),
            errors=[
                ErrorShown(
                    kind=line.kind,
                    flow=line.key.flow,
                    phase=line.key.phase,
                    step=line.key.step,
                    count=line.count,
                    rate=round(line.rate, 4),
                )
                for line in metrics.errors(facts)
            ],
            wait=Durations.of(metrics.times(facts, metrics.Measure.WAIT)),
            commit=Durations.of(metrics.times(facts, metrics.Measure.COMMIT)),
            sessions=Durations.of(metrics.times(facts, metrics.Measure.SESSION)),
            human=Durations.of(metrics.times(facts, metrics.Measure.HUMAN)),
            calls=CallsShown.of(metrics.calls(facts)),
            sources=_sources(metrics.by_source(facts)),
            now=Now.of(present, listening=listening),
        )


class AlertShown(Shown):
    """Something that was worth a person's attention, or is."""

    id: int
    kind: AlertKind
    flow: str | None
    session_id: str | None
    phase: int | None
    step: str | None
    value: float = Field(description="when it was raised: a share, seconds, or how many")
    threshold: float = Field(description="from where on that was an alert")
    raised_at: datetime
    resolved_at: datetime | None = Field(description="null: it is not over")
    message: dict[str, str] = Field(description="the same in words, by language")


class AlertList(Shown):
    """Alerts, the newest first."""

    alerts: list[AlertShown]

    @classmethod
    def of(cls, found: list[Alert]) -> Self:
        """Show alerts."""
        return cls(alerts=[AlertShown.model_validate(told_of(alert)) for alert in found])


class StepMetricsShown(Shown):
    """One step of one flow."""

    flow: str
    phase: int
    step: str
    wall: Durations = Field(description="the whole step, from first attempt to last result")
    attempts: AttemptsShown
    wait: Durations
    calls: CallsShown
    sources: list[SourceShown]
    errors: dict[str, int]

    @classmethod
    def of(cls, found: metrics.StepMetrics) -> Self:
        """Show a step."""
        return cls(
            flow=found.key.flow,
            phase=found.key.phase,
            step=found.key.step,
            wall=Durations.of(found.wall),
            attempts=AttemptsShown.of(found.attempts),
            wait=Durations.of(found.wait),
            calls=CallsShown.of(found.calls),
            sources=_sources(found.sources),
            errors=found.errors,
        )


class StepMetricsList(Windowed):
    """The steps, in running order."""

    steps: list[StepMetricsShown]

    @classmethod
    def of(cls, past: Past, window: Window, flow: str | None) -> Self:
        """Show the steps of a window."""
        return cls(
            window=window,
            flow=flow,
            since=past.since,
            until=past.until,
            counted_to=past.counted_to,
            steps=[StepMetricsShown.of(step) for step in metrics.by_step(past.facts)],
        )


class SlowSourceShown(Shown):
    """The model or source of a step that takes longest."""

    name: str
    p95_s: float
    calls: int


class BottleneckShown(Shown):
    """A step, and what its time goes to."""

    flow: str
    phase: int
    step: str
    share: float = Field(description="of its flow's machine time")
    p95_s: float
    slowest_source: SlowSourceShown | None
    retries: float = Field(description="share of its attempts that repeat one that went wrong")
    trend: float | None = Field(description="how much longer than the window before; 0.1 is 10 %")
    sentences: dict[str, str] = Field(description="the same in words, by language")

    @classmethod
    def of(cls, found: bottlenecks.Bottleneck, window: Window) -> Self:
        """Show a bottleneck."""
        key, source = found.step.key, found.source
        return cls(
            flow=key.flow,
            phase=key.phase,
            step=key.step,
            share=round(found.share, 4),
            p95_s=round(found.p95_s, 4),
            slowest_source=None if source is None else SlowSourceShown.model_validate(source),
            retries=round(found.retries, 4),
            trend=_rounded(found.trend),
            sentences=of_bottleneck(found, window),
        )


class BottleneckList(Windowed):
    """Steps by their share of machine time, largest first."""

    bottlenecks: list[BottleneckShown]

    @classmethod
    def of(cls, past: Past, before: Past, window: Window, flow: str | None) -> Self:
        """Rank the steps of a window."""
        return cls(
            window=window,
            flow=flow,
            since=past.since,
            until=past.until,
            counted_to=past.counted_to,
            bottlenecks=[
                BottleneckShown.of(b, window) for b in bottlenecks.rank(past.facts, before.facts)
            ],
        )


def _sources(found: dict[str, metrics.Calls]) -> list[SourceShown]:
    shown = []
    for name, calls in found.items():
        one = SourceShown.of(calls)
        one.source = name
        shown.append(one)
    return shown

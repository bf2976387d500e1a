"""The metrics as Prometheus reads them: the same facts as the JSON ones, since ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ekiden.core.alerts import AlertKind
from ekiden.core.histogram import Histogram, upper_bound
from ekiden.core.metrics import Fact, Measure, times_by
from ekiden.store.metrics import Present

MEDIA_TYPE = CONTENT_TYPE_LATEST

_EVERY = 8  # buckets a Prometheus bucket: its bounds grow by 2.1
_BOUNDS = range(0, 22 * _EVERY, _EVERY)  # up to five hours and a half

_STEP = ("flow", "phase", "step")


def render(facts: list[Fact], present: Present, *, listening: bool) -> bytes:
    """Return the text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(facts, present, listening=listening))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, facts: list[Fact], present: Present, *, listening: bool) -> None:
        self._facts = facts
        self._present = present
        self._listening = listening

    def collect(self) -> Iterator[Metric]:
        yield from _of_facts(self._facts)
        yield from _of_present(self._present, listening=self._listening)


def _of_facts(facts: list[Fact]) -> Iterator[Metric]:
    yield _histogram(
        facts, Measure.ATTEMPT, "ekiden_attempt_seconds", "Attempts that ended: their run time.",
        (*_STEP, "outcome"),
    )  # fmt: skip
    yield _histogram(
        facts, Measure.WAIT, "ekiden_queue_wait_seconds", "From when a task was due to its claim.",
        _STEP,
    )  # fmt: skip
    yield _histogram(
        facts, Measure.COMMIT, "ekiden_commit_seconds", "From sending a result to durable.",
        (),
    )  # fmt: skip
    yield _histogram(
        facts, Measure.STEP, "ekiden_step_seconds", "Steps, from first attempt to last result.",
        _STEP,
    )  # fmt: skip
    yield _histogram(
        facts, Measure.SESSION, "ekiden_session_seconds", "Completed sessions, from creation.",
        ("flow",),
    )  # fmt: skip
    yield _histogram(
        facts, Measure.CALL, "ekiden_call_seconds", "Calls to models and sources.",
        (*_STEP, "source", "outcome"),
    )  # fmt: skip
    yield _histogram(
        facts, Measure.TOKEN, "ekiden_first_token_seconds", "Streamed calls, until the first text.",
        ("flow", "source"),
    )  # fmt: skip
    yield _histogram(
        facts, Measure.HUMAN, "ekiden_review_wait_seconds", "From an open gate to its review.",
        ("flow", "phase", "outcome"),
    )  # fmt: skip
    errors = CounterMetricFamily(
        "ekiden_attempt_errors", "Attempts that went wrong, by kind of error.",
        labels=(*_STEP, "error"),
    )  # fmt: skip
    for labels, times in times_by(
        (f for f in facts if f.error), Measure.ATTEMPT, lambda f: _labels(f, (*_STEP, "error"))
    ).items():
        errors.add_metric(labels, times.n)
    yield errors
    for field, name, about in (
        ("input_tokens", "ekiden_input_tokens", "Tokens that models were sent."),
        ("output_tokens", "ekiden_output_tokens", "Tokens that models answered."),
        ("cost_usd", "ekiden_cost_usd", "What calls cost, as far as prices are known."),
        ("unpriced", "ekiden_unpriced_calls", "Calls to models whose cost is not known."),
    ):
        yield _sum(facts, field, name, about)


def _histogram(
    facts: list[Fact], measure: Measure, name: str, about: str, labels: tuple[str, ...]
) -> Metric:
    family = HistogramMetricFamily(name, about, labels=labels)
    for values, times in times_by(facts, measure, lambda f: _labels(f, labels)).items():
        family.add_metric(values, list(_cumulated(times)), times.seconds)
    return family


def _cumulated(times: Histogram) -> Iterable[tuple[str, float]]:
    for bound in _BOUNDS:
        yield (
            f"{upper_bound(bound):.4g}",
            sum(n for bucket, n in times.counts.items() if bucket <= bound),
        )
    yield "+Inf", times.n


def _sum(facts: list[Fact], field: str, name: str, about: str) -> Metric:
    labels = ("flow", "source")
    sums: dict[tuple[str, ...], float] = {}
    for fact in facts:
        if fact.measure == Measure.CALL:
            key = _labels(fact, labels)
            sums[key] = sums.get(key, 0) + float(getattr(fact, field))
    family = CounterMetricFamily(name, about, labels=labels)
    for values, total in sums.items():
        family.add_metric(values, total)
    return family


def _labels(fact: Fact, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(fact, name)) for name in names)


def _of_present(present: Present, *, listening: bool) -> Iterator[Metric]:
    queue = GaugeMetricFamily("ekiden_queued_tasks", "Tasks in the queue.", labels=("when",))
    queue.add_metric(("due",), present.due)
    queue.add_metric(("later",), present.later)
    yield queue
    sessions = GaugeMetricFamily(
        "ekiden_open_sessions", "Sessions that have not ended.", labels=("status",)
    )
    for status in ("RUNNING", "AWAITING_REVIEW", "PAUSED", "FAILED"):
        sessions.add_metric((status,), present.sessions.get(status, 0))
    yield sessions
    workers = GaugeMetricFamily(
        "ekiden_workers", "Workers present, and those that left within a day.", labels=("state",)
    )
    count = {w.state: w.n for w in present.workers}
    for state in ("ALIVE", "DRAINING", "LOST", "STOPPED"):
        workers.add_metric((state,), count.get(state, 0))
    yield workers
    alerts = GaugeMetricFamily("ekiden_alerts", "Alerts that are open.", labels=("kind",))
    for kind in AlertKind:
        alerts.add_metric((kind,), present.alerts.get(kind, 0))
    yield alerts
    here = [w for w in present.workers if w.state in {"ALIVE", "DRAINING"}]
    for name, about, value in (
        ("ekiden_oldest_queued_seconds", "How long the oldest due task has been due.",
         present.oldest_s or 0.0),
        ("ekiden_busy_slots", "Tasks that workers run.", sum(w.busy for w in here)),
        ("ekiden_slots", "Tasks that workers could run.", sum(w.capacity for w in here)),
        ("ekiden_doorbell_listening", "Whether this process hears doorbells.", int(listening)),
        ("ekiden_notify_queue_usage_ratio", "Used share of PostgreSQL's notification queue.",
         present.notify_queue_usage),
        ("ekiden_oldest_snapshot_seconds", "Age of what holds back vacuum.",
         present.oldest_snapshot_s or 0.0),
        ("ekiden_oldest_snapshot_transactions", "The same in transactions.",
         present.oldest_snapshot_xids or 0),
        ("ekiden_dead_tuples", "Row versions that vacuum has left to clean.", present.dead_tuples),
        ("ekiden_database_connections", "Connections to this database.", present.connections),
        ("ekiden_database_max_connections", "Connections the server takes in all.",
         present.max_connections),
    ):  # fmt: skip
        yield GaugeMetricFamily(name, about, value=value)

"""Where the time of one session went: its critical path, from creation to end or to now.

The path is what the session waited for at each moment. Phases follow each other and so do steps; of
a fan-out's tasks the one that ended last is on the path. What lies between two attempts on it is a
person's time where the session was at a gate, held, paused or failed; else back-off until the retry
was due, else queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from ekiden.core.model import Outcome, SessionState

_STEPS = ("THINK", "EXECUTE", "INTEGRATE")

# What ends a stop. At a gate the person's turn goes on, as the gate's.
_RESUMES = frozenset(
    {"session_resumed", "items_accepted", "items_retried", "phase_rerun", "gate_opened"}
)

Span = tuple[datetime, datetime]


class Kind(StrEnum):
    """What a stretch of the path is."""

    RUN = "run"  # an attempt that was completed, or that runs
    REPEATED = "repeated"  # an attempt that has to be made again
    BACKOFF = "backoff"  # until a retry is due
    QUEUE = "queue"  # due, and not yet claimed
    HUMAN = "human"  # a person's turn


MACHINE = frozenset({Kind.RUN, Kind.REPEATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A task with one of its attempts, or without any."""

    task_id: int
    phase: int
    generation: int
    step: str
    item: int
    status: str
    awaiting: bool
    created_at: datetime
    number: int | None
    outcome: str | None
    started_at: datetime | None
    finished_at: datetime | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTime:
    """How long one call took."""

    task_id: int
    source: str  # provider:model
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An event that begins or ends a person's turn."""

    type: str
    phase: int | None
    step: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A generation of a phase began."""

    phase: int
    generation: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """All that the timing of a session is made of."""

    status: str
    created_at: datetime
    completed_at: datetime | None
    now: datetime
    tried: Sequence[Tried]
    calls: Sequence[CallTime]
    moments: Sequence[Moment]
    runs: Sequence[Run]

    @property
    def end(self) -> datetime:
        """Where the path ends, so far."""
        return self.completed_at or self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the critical path."""

    kind: Kind
    begin: datetime
    end: datetime
    phase: int
    generation: int
    step: str
    task_id: int
    attempt: int | None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.begin).total_seconds()


@dataclass(slots=True, kw_only=True)
class StepTime:
    """What one step had of the path."""

    phase: int
    generation: int
    step: str
    tasks: int
    task_id: int  # the one on the path
    attempts: int = 0  # of all its tasks
    repeated: int = 0
    seconds: dict[Kind, float] = field(default_factory=dict)
    share: float = 0.0  # of the machine time
    slowest_source: tuple[str, float, int] | None = None  # name, seconds, calls; on the path

    @property
    def machine(self) -> float:
        """Seconds in attempts."""
        return sum(self.seconds.get(kind, 0.0) for kind in MACHINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time went."""

    path: list[Segment]
    steps: list[StepTime]  # in running order
    seconds: dict[Kind, float]

    @property
    def machine(self) -> float:
        """Seconds in attempts."""
        return sum(self.seconds[kind] for kind in MACHINE)


def timing(lived: Lived) -> Timing:
    """Return the critical path of a session and what each step had of it."""
    human = _human(lived)
    path: list[Segment] = []
    steps: list[StepTime] = []
    cursor = lived.created_at
    for tasks in _in_order(lived):
        critical = max(tasks.values(), key=lambda t: (_end_of(t, lived), -t[0].task_id))
        found, cursor = _segments(critical, cursor, human, lived)
        path += found
        steps.append(_step_time(tasks, critical, found, lived))
    if steps and lived.end > cursor and lived.status != SessionState.RUNNING:
        last = path[-1] if path else None
        if last is not None:
            path += _gap(cursor, lived.end, None, human, last)
    seconds = {kind: sum(s.seconds for s in path if s.kind is kind) for kind in Kind}
    whole = sum(seconds[kind] for kind in MACHINE)
    for step in steps:
        step.share = step.machine / whole if whole else 0.0
    return Timing(path=path, steps=steps, seconds=seconds)


def _in_order(lived: Lived) -> Iterable[dict[int, list[Tried]]]:
    """Yield the attempts by task, step by step as the session went."""
    groups: dict[tuple[int, int, str], dict[int, list[Tried]]] = {}
    for tried in lived.tried:
        group = groups.setdefault((tried.phase, tried.generation, tried.step), {})
        group.setdefault(tried.task_id, []).append(tried)
    for run in sorted(lived.runs, key=lambda r: (r.started_at, r.phase, r.generation)):
        for step in _STEPS:
            if tasks := groups.get((run.phase, run.generation, step)):
                yield tasks


def _end_of(attempts: list[Tried], lived: Lived) -> datetime:
    last = attempts[-1]
    if last.status in {"QUEUED", "RUNNING"} or last.started_at is None:
        return lived.end
    return last.finished_at or lived.end


def _segments(
    attempts: list[Tried], cursor: datetime, human: list[Span], lived: Lived
) -> tuple[list[Segment], datetime]:
    """Return the stretches of one task, and where they end."""
    found: list[Segment] = []
    due: datetime | None = None
    for tried in attempts:
        begin = tried.started_at
        if begin is None:  # never tried
            break
        found += _gap(cursor, begin, due, human, tried)
        end = tried.finished_at or lived.end
        done = tried.outcome in {Outcome.COMPLETED, "RUNNING"}
        kind = Kind.RUN if done else Kind.REPEATED
        if end > (begin := max(begin, cursor)):
            found.append(_segment(kind, begin, end, tried))
        cursor, due = max(cursor, end), tried.retry_at
    last = attempts[-1]
    if last.status == "QUEUED" and lived.end > cursor:
        found += _gap(cursor, lived.end, due, human, last)
        cursor = lived.end
    return found, cursor


def _gap(
    begin: datetime, end: datetime, due: datetime | None, human: list[Span], at: Tried | Segment
) -> list[Segment]:
    """Cut the time between two attempts into what it is."""
    if end <= begin:
        return []
    cuts = {begin, end}
    cuts.update(t for span in human for t in span if begin < t < end)
    if due is not None and begin < due < end:
        cuts.add(due)
    ordered = sorted(cuts)
    found: list[Segment] = []
    for left, right in pairwise(ordered):
        if any(b <= left and right <= e for b, e in human):
            kind = Kind.HUMAN
        elif due is not None and right <= due:
            kind = Kind.BACKOFF
        else:
            kind = Kind.QUEUE
        found.append(_segment(kind, left, right, at))
    return found


def _segment(kind: Kind, begin: datetime, end: datetime, at: Tried | Segment) -> Segment:
    attempt = None
    if kind in MACHINE and isinstance(at, Tried):
        attempt = at.number
    return Segment(
        kind=kind,
        begin=begin,
        end=end,
        phase=at.phase,
        generation=at.generation,
        step=at.step,
        task_id=at.task_id,
        attempt=attempt,
    )


def _step_time(
    tasks: dict[int, list[Tried]], critical: list[Tried], found: list[Segment], lived: Lived
) -> StepTime:
    first = critical[0]
    tried = [t for attempts in tasks.values() for t in attempts if t.number is not None]
    seconds: dict[Kind, float] = {}
    for segment in found:
        seconds[segment.kind] = seconds.get(segment.kind, 0.0) + segment.seconds
    return StepTime(
        phase=first.phase,
        generation=first.generation,
        step=first.step,
        tasks=len(tasks),
        task_id=first.task_id,
        attempts=len(tried),
        repeated=sum(t.outcome not in {Outcome.COMPLETED, "RUNNING"} for t in tried),
        seconds=seconds,
        slowest_source=_slowest(first.task_id, lived.calls),
    )


def _slowest(task_id: int, calls: Sequence[CallTime]) -> tuple[str, float, int] | None:
    sums: dict[str, tuple[float, int]] = {}
    for call in calls:
        if call.task_id == task_id:
            seconds, n = sums.get(call.source, (0.0, 0))
            sums[call.source] = seconds + call.seconds, n + 1
    if not sums:
        return None
    name = max(sums, key=lambda s: (sums[s][0], s))
    return name, *sums[name]


def _human(lived: Lived) -> list[Span]:
    """Return when it was a person's turn: at a gate, held, paused, failed."""
    spans: list[Span] = []
    moments = sorted(lived.moments, key=lambda m: m.at)
    resumed = _resumed(moments)
    for moment in moments:
        match moment.type:
            case "gate_opened":
                ends = [r.started_at for r in lived.runs if r.started_at > moment.at]
            case "task_failed" | "session_paused" | "items_failed" | "budget_reached":
                ends = [at for at in resumed if at > moment.at]
            case "step_started":
                spans += [
                    (begun, moment.at)
                    for begun in _created(lived, moment.phase, moment.step, before=moment.at)
                ]
                continue
            case _:
                continue
        spans.append((moment.at, min([*ends, lived.end])))
    spans += [(t.created_at, lived.end) for t in lived.tried if t.awaiting and t.number is None]
    return spans


def _resumed(moments: Sequence[Moment]) -> list[datetime]:
    """Return when what had stopped the session was over; a budget that is set ends its own stop."""
    found: list[datetime] = []
    stop = ""
    for moment in moments:
        spent = moment.type == "budget_reached" and stop != "task_failed"  # which outweighs it
        if spent or moment.type == "task_failed":
            stop = moment.type
        elif moment.type in _RESUMES or (moment.type, stop) == ("budget_set", "budget_reached"):
            found.append(moment.at)
            stop = ""
    return found


def _created(
    lived: Lived, phase: int | None, step: str | None, *, before: datetime
) -> list[datetime]:
    """Return when the tasks that a person let go had been made: the latest ones before."""
    made = [
        t.created_at
        for t in lived.tried
        if (t.phase, t.step) == (phase, step) and t.created_at < before
    ]
    return [max(made)] if made else []

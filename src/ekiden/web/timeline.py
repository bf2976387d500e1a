"""Where the time of a session went: tasks, attempts, calls and people on one time line.

The hours in which a person thinks would squeeze the seconds in which the machine works into
nothing, so they are drawn at a fixed width and carry their length as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ekiden.core.model import StepKind
from ekiden.core.records import ReviewLine
from ekiden.store.pages import AttemptRow, CallRow, TaskRow

WIDTH = 1000.0  # units of the drawing, without the labels before it
_PERSON = 60.0  # units that a person's time takes, however long it was
_SHORT = 1.0  # seconds; a person's time below it is drawn as it was
_ORDER = list(StepKind)
MOST_ROWS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One stretch of time in a row."""

    kind: str  # queue, run, running, failed, retry, call
    left: float
    width: float
    seconds: float
    what: str = ""  # of a call: who answered; of an attempt: its outcome
    number: int = 0  # of the attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task."""

    task: TaskRow
    bars: list[Bar]
    critical: bool  # its step could not end before it did
    queued: float  # seconds, all attempts
    ran: float
    called: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A stretch in which everything waited for a person."""

    phase: int
    left: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The drawing, and the sums beside it, in seconds."""

    rows: list[Row]  # those that are drawn
    of_task: dict[int, Row]  # all, by the task's id
    left_out: int
    waits: list[Wait]
    total: float
    person: float
    queued: float
    ran: float
    called: float


class _Scale:
    """Moments to units: linear, but for the waits."""

    def __init__(
        self, start: datetime, end: datetime, waits: Sequence[tuple[datetime, datetime]]
    ) -> None:
        self._start = start
        self._waits = [w for w in waits if (w[1] - w[0]).total_seconds() > _SHORT]
        waited = sum((b - a).total_seconds() for a, b in self._waits)
        work = max((end - start).total_seconds() - waited, 0.001)
        room = max(WIDTH - _PERSON * len(self._waits), WIDTH / 4)
        self._unit = room / work
        self._gap = (WIDTH - room) / len(self._waits) if self._waits else 0.0

    def at(self, moment: datetime) -> float:
        """Return where a moment lies."""
        units = max((moment - self._start).total_seconds(), 0.0) * self._unit
        for begin, end in self._waits:
            inside = (min(moment, end) - begin).total_seconds()
            if inside > 0:
                length = (end - begin).total_seconds()
                units += self._gap * inside / length - inside * self._unit
        return round(min(max(units, 0.0), WIDTH), 2)


def timeline(
    tasks: Sequence[TaskRow],
    attempts: Sequence[AttemptRow],
    calls: Sequence[CallRow],
    reviews: Sequence[ReviewLine],
    *,
    waiting: tuple[int, datetime] | None,
    ended: datetime | None,
    now: datetime,
) -> Timeline | None:
    """Lay out a session's time, or return None while nothing has happened.

    Args:
        tasks: in running order.
        attempts: those that ended; the running one is the task's own.
        calls: as the ledger has them.
        reviews: oldest first.
        waiting: the phase in which a person is waited for now, and since when.
        ended: when the session ended, if it has.
        now: the database's time.
    """
    begun = [t for t in tasks if t.started_at is not None]
    if not begun:
        return None
    waits = list(_waits(reviews, waiting, now))
    start = min(t.created_at for t in begun)
    finish = max([ended or now, *(t.completed_at for t in begun if t.completed_at)])
    scale = _Scale(start, finish, [(a, b) for _, a, b in waits])
    by_task: dict[int, list[AttemptRow]] = {}
    for attempt in attempts:
        by_task.setdefault(attempt.task_id, []).append(attempt)
    calls_of: dict[int, list[CallRow]] = {}
    for call in calls:
        calls_of.setdefault(call.task_id, []).append(call)
    critical = _critical(begun)
    rows = [
        _row(
            t,
            by_task.get(t.id, []),
            calls_of.get(t.id, []),
            scale=scale,
            critical=t.id in critical,
            now=now,
        )
        for t in begun
    ]
    return Timeline(
        rows=rows[:MOST_ROWS],
        of_task={row.task.id: row for row in rows},
        left_out=max(0, len(rows) - MOST_ROWS),
        waits=[
            Wait(
                phase=phase,
                left=scale.at(a),
                width=round(scale.at(b) - scale.at(a), 2),
                seconds=(b - a).total_seconds(),
            )
            for phase, a, b in waits
        ],
        total=(finish - start).total_seconds(),
        person=sum((b - a).total_seconds() for _, a, b in waits),
        queued=sum(r.queued for r in rows),
        ran=sum(r.ran for r in rows),
        called=sum(r.called for r in rows),
    )


def _waits(
    reviews: Sequence[ReviewLine], waiting: tuple[int, datetime] | None, now: datetime
) -> Iterator[tuple[int, datetime, datetime]]:
    """Yield the stretches in which the session waited for a decision, oldest first.

    Who edits does not end the wait: each decision over it has the part since the one before.
    """
    decided: datetime | None = None
    for review in reviews:
        if review.waited is not None and review.waited.total_seconds() > 0:
            begun = review.created_at - review.waited
            yield review.phase, max(begun, decided or begun), review.created_at
            decided = review.created_at
    if waiting is not None:
        phase, begun = waiting
        yield phase, max(begun, decided or begun), now


def _critical(tasks: Sequence[TaskRow]) -> set[int]:
    """Return the tasks that ended last in their step: what follows could not start before."""
    last: dict[tuple[int, int, int], TaskRow] = {}
    for task in tasks:
        if task.completed_at is None:
            continue
        key = (task.phase, task.generation, _ORDER.index(StepKind(task.step)))
        best = last.get(key)
        if best is None or (best.completed_at and task.completed_at > best.completed_at):
            last[key] = task
    return {task.id for task in last.values()}


def _row(
    task: TaskRow,
    attempts: Sequence[AttemptRow],
    calls: Sequence[CallRow],
    *,
    scale: _Scale,
    critical: bool,
    now: datetime,
) -> Row:
    bars: list[Bar] = []
    since = task.created_at

    def add(kind: str, a: datetime, b: datetime, **more: str | int) -> float:
        seconds = (b - a).total_seconds()
        if seconds > 0:
            left = scale.at(a)
            width = round(max(scale.at(b) - left, 0.6), 2)
            bars.append(
                Bar(kind=kind, left=left, width=width, seconds=seconds, **more)  # type: ignore[arg-type]
            )
        return max(seconds, 0.0)

    queued = ran = called = 0.0
    for attempt in attempts:
        waited_for = "queue" if attempt.number == 1 else "retry"
        queued += add(waited_for, since, attempt.started_at)
        nothing_wrong = attempt.outcome in {"COMPLETED", "RELEASED"}
        ran += add(
            "run" if nothing_wrong else "failed", attempt.started_at, attempt.finished_at,
            what=attempt.outcome, number=attempt.number,
        )  # fmt: skip
        since = attempt.finished_at
    if task.status == "RUNNING" and task.started_at is not None:
        queued += add("queue" if task.attempt == 1 else "retry", since, task.started_at)
        ran += add("running", task.started_at, now, what="RUNNING", number=task.attempt)
    for call in calls:
        called += add(
            "call", call.started_at, call.finished_at, what=f"{call.provider}:{call.model}",
            number=call.attempt,
        )  # fmt: skip
    return Row(task=task, bars=bars, critical=critical, queued=queued, ran=ran, called=called)

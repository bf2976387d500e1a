"""Alerts: what is worth a person's attention, decided from readings.

One is raised once, when a reading reaches its limit, and resolved once, when the reading is well
below it (or there is none any more, and all could be read). In between nothing is told, so a
reading that swings around its limit makes no storm; nor do many sessions that stand still together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

EASE = 0.75  # of its limit: an alert is over when its reading is below that
AT_ONCE = 20  # alerts of a kind that may be open; what is more is not raised
LOOK_BACK = timedelta(minutes=15)  # over which errors and lost workers are counted
ENOUGH = 20  # attempts of which a rate is worth an alert
COUNTED = timedelta(minutes=3)  # after its end an attempt is counted, unless counting is held up


class AlertKind(StrEnum):
    """What an alert is about, and what its value is."""

    ERROR_RATE = "error_rate"  # of a flow: the share of its attempts that went wrong, 0 to 1
    QUEUE_AGE = "queue_age"  # seconds that the oldest due task has been due
    STUCK_SESSION = "stuck_session"  # seconds since a task of a RUNNING session ended
    BUDGET = "budget"  # the share that a session has spent of its budget, or of a phase's
    WORKERS_LOST = "workers_lost"  # how many within the last minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From which reading on there is an alert; 0 is never."""

    error_rate: float = 0.25
    queue_age: float = 300.0
    stuck_session: float = 1800.0
    budget: float = 0.9
    workers_lost: float = 1

    def of(self, kind: AlertKind) -> float:
        """Return the limit of a kind."""
        match kind:
            case AlertKind.ERROR_RATE:
                return self.error_rate
            case AlertKind.QUEUE_AGE:
                return self.queue_age
            case AlertKind.STUCK_SESSION:
                return self.stuck_session
            case AlertKind.BUDGET:
                return self.budget
            case AlertKind.WORKERS_LOST:
                return self.workers_lost
            case _:
                assert_never(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of one subject."""

    kind: AlertKind
    subject: str = ""
    value: float
    trusted: bool = True  # False: of too little to raise an alert
    flow: str | None = None
    session_id: str | None = None
    phase: int | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One that was raised."""

    id: int
    kind: str
    subject: str
    flow: str | None
    session_id: str | None
    phase: int | None
    step: str | None
    value: float  # when it was raised
    threshold: float
    raised_at: datetime
    resolved_at: datetime | None


def decide(
    readings: Iterable[Reading],
    open_: Iterable[Alert],
    limits: Limits,
    *,
    unread: Collection[AlertKind] = (),
) -> tuple[list[Reading], list[Alert]]:
    """Return what is to be raised, and what is over.

    Args:
        readings: at most one of a kind and subject; the worst of a kind first.
        open_: the alerts that are not over yet.
        limits: from where on there is an alert.
        unread: kinds of which not all could be read; none of theirs is over for that.
    """
    read = {(r.kind, r.subject): r for r in readings}
    opened = {(AlertKind(a.kind), a.subject): a for a in open_}
    over = [
        alert
        for key, alert in opened.items()
        if key[0] not in unread
        and ((reading := read.get(key)) is None or not _still(reading, limits.of(key[0])))
    ]
    room = dict.fromkeys(AlertKind, AT_ONCE)
    for kind, _ in opened:
        room[kind] -= 1
    raised = []
    for key, reading in read.items():
        limit = limits.of(reading.kind)
        if key in opened or not limit or not reading.trusted or reading.value < limit:
            continue
        if room[reading.kind] > 0:
            room[reading.kind] -= 1
            raised.append(reading)
    return raised, over


def _still(reading: Reading, limit: float) -> bool:
    return bool(limit) and reading.value >= limit * EASE

"""Charts, computed here and drawn as SVG by a template; the table behind each says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ekiden.core.model import TaskState
from ekiden.store.pages import RecentTask

WIDTH, HEIGHT = 720, 150
_BARS = 40
_STEPS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)  # seconds a bar may stand for


@dataclass(frozen=True, slots=True, kw_only=True)
class BarShown:
    """One stretch of time."""

    start: datetime
    completed: int
    failed: int
    x: float
    width: float
    completed_y: float
    completed_height: float
    failed_y: float
    failed_height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Tasks that ended, by time."""

    bars: list[BarShown]
    seconds: int  # a bar
    top: int
    completed: int
    failed: int


def throughput(tasks: Sequence[RecentTask], now: datetime) -> Throughput | None:
    """Return the tasks that ended lately in at most forty bars up to ``now``."""
    if not tasks:
        return None
    # What ended after ``now`` was read, as on the first page of all, ended just now.
    ages = [max((now - t.ended_at).total_seconds(), 0.0) for t in tasks]
    span = max(ages)
    seconds = next((s for s in _STEPS if span / s <= _BARS), _STEPS[-1])
    count = min(int(span // seconds) + 1, _BARS)
    counts = [[0, 0] for _ in range(count)]
    for task, age in zip(tasks, ages, strict=True):
        back = int(age // seconds)
        if back < count:
            counts[count - 1 - back][task.status == TaskState.FAILED] += 1
    top = max(1, *(sum(pair) for pair in counts))
    width = WIDTH / count
    bars = []
    for number, (completed, failed) in enumerate(counts):
        completed_height = round(HEIGHT * completed / top, 2)
        failed_height = round(HEIGHT * failed / top, 2)
        bars.append(
            BarShown(
                start=now - timedelta(seconds=seconds * (count - number)),
                completed=completed,
                failed=failed,
                x=round(number * width, 2),
                width=round(max(width - 2, 1), 2),
                completed_y=HEIGHT - completed_height,
                completed_height=completed_height,
                failed_y=HEIGHT - completed_height - failed_height,
                failed_height=failed_height,
            )
        )
    return Throughput(
        bars=bars,
        seconds=seconds,
        top=top,
        completed=sum(b.completed for b in bars),
        failed=sum(b.failed for b in bars),
    )

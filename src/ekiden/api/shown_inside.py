"""The inside of a session as callers are shown it. Durations in seconds, shares from 0 to 1."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from ekiden.api.shown import Shown
from ekiden.core import timing
from ekiden.core.sentences import of_session
from ekiden.core.timing import Kind


class SegmentShown(Shown):
    """A stretch of the critical path."""

    kind: Kind
    begin: datetime
    end: datetime
    seconds: float
    phase: int
    generation: int
    step: str
    task_id: int
    attempt: int | None


class SourceTime(Shown):
    """What the calls to one model or source took."""

    name: str = Field(description="provider:model")
    seconds: float
    calls: int


class StepTimeShown(Shown):
    """What one step had of the critical path."""

    phase: int
    generation: int
    step: str
    tasks: int
    task_id: int = Field(description="the task on the path: the one that ended last")
    attempts: int = Field(description="of all its tasks")
    repeated: int
    machine_s: float
    share: float = Field(description="of the session's machine time")
    waiting_s: float
    human_s: float
    slowest_source: SourceTime | None

    @classmethod
    def of(cls, step: timing.StepTime) -> Self:
        """Show a step."""
        slow = step.slowest_source
        return cls(
            phase=step.phase,
            generation=step.generation,
            step=step.step,
            tasks=step.tasks,
            task_id=step.task_id,
            attempts=step.attempts,
            repeated=step.repeated,
            machine_s=round(step.machine, 4),
            share=round(step.share, 4),
            waiting_s=round(
                step.seconds.get(Kind.QUEUE, 0.0) + step.seconds.get(Kind.BACKOFF, 0.0), 4
            ),
            human_s=round(step.seconds.get(Kind.HUMAN, 0.0), 4),
            slowest_source=None
            if slow is None
            else SourceTime(name=slow[0], seconds=round(slow[1], 4), calls=slow[2]),
        )


class TimingShown(Shown):
    """Where the time of a session went."""

    session_id: str
    machine_s: float = Field(description="in attempts: run and repeated")
    seconds: dict[Kind, float] = Field(description="of the critical path, by what they are")
    steps: list[StepTimeShown] = Field(description="in running order")
    path: list[SegmentShown] = Field(description="the critical path")
    sentences: dict[str, list[str]] = Field(description="the same in words, by language")

    @classmethod
    def of(cls, session_id: str, found: timing.Timing) -> Self:
        """Show a timing."""
        return cls(
            session_id=session_id,
            machine_s=round(found.machine, 4),
            seconds={kind: round(s, 4) for kind, s in found.seconds.items()},
            steps=[StepTimeShown.of(step) for step in found.steps],
            path=[SegmentShown.model_validate(s) for s in found.path],
            sentences=of_session(found),
        )

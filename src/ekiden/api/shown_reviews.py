"""What callers are shown of decisions, and of what waits for one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import Field

from ekiden.api.shown import Shown
from ekiden.api.shown_progress import Progress
from ekiden.api.shown_sessions import RevisionShown
from ekiden.core import records
from ekiden.core.json_changes import compare


class Decided(Progress):
    """Where a session is after a decision."""

    missing: int = Field(description="approvals that the gate decided on still needs")
    stale: list[int] = Field(description="later phases that will run again")
    kept: list[int] = Field(description="later phases whose output still holds")
    edited: int | None = Field(description="the revision that was decided on, or that an edit made")


class ReviewShown(Shown):
    """One decision."""

    id: int
    phase: int
    generation: int | None
    step: str | None
    verb: str
    revision_id: int | None
    actor: str
    comment: str | None
    passes: bool = Field(description="an approval that passed the gate; others count towards it")
    waited_ms: int | None = Field(description="how long the session had waited for it")
    created_at: datetime

    @classmethod
    def of(cls, line: records.ReviewLine) -> Self:
        """Show a decision."""
        return cls.model_validate(
            {f: getattr(line, f) for f in cls.model_fields if f != "waited_ms"}
            | {"waited_ms": _ms(line.waited)}
        )


class ReviewList(Shown):
    """The decisions over a session."""

    reviews: list[ReviewShown]

    @classmethod
    def of(cls, lines: Sequence[records.ReviewLine]) -> Self:
        """Show decisions."""
        return cls(reviews=[ReviewShown.of(line) for line in lines])


class Stale(Shown):
    """What going back to a phase would do."""

    phase: int
    stale: list[int] = Field(description="later phases that would run again")
    kept: list[int] = Field(description="later phases whose output would still hold")


class ChangeShown(Shown):
    """One difference between two outputs, in the words of RFC 6902."""

    op: str = Field(description="add, remove or replace")
    path: str = Field(description="JSON Pointer")
    old: Any
    new: Any


class WaitingShown(Shown):
    """One session that waits for a person."""

    session_id: str
    flow: str
    title: str
    status: str
    phase: int
    step: str
    phase_title: str
    stop: dict[str, Any] | None
    waiting_since: datetime
    age_ms: int

    @classmethod
    def of(cls, line: records.WaitingLine) -> Self:
        """Show a session that waits."""
        known = {f: getattr(line, f) for f in cls.model_fields if hasattr(line, f)}
        return cls.model_validate(known | {"session_id": line.id, "age_ms": _ms(line.age)})


class WaitingTimesShown(Shown):
    """How long sessions wait for people; null where there is nothing to measure."""

    waiting: int
    age_p50_ms: int | None
    age_p90_ms: int | None
    decided: int = Field(description="in the last 30 days")
    took_p50_ms: int | None
    took_p90_ms: int | None

    @classmethod
    def of(cls, times: records.WaitingTimes) -> Self:
        """Show them."""
        return cls(
            waiting=times.waiting,
            age_p50_ms=_ms(times.age_p50),
            age_p90_ms=_ms(times.age_p90),
            decided=times.decided,
            took_p50_ms=_ms(times.took_p50),
            took_p90_ms=_ms(times.took_p90),
        )


class WaitingList(Shown):
    """The reviewers' queue."""

    sessions: list[WaitingShown]
    times: WaitingTimesShown

    @classmethod
    def of(cls, lines: Sequence[records.WaitingLine], times: records.WaitingTimes) -> Self:
        """Show what waits, and how long people take."""
        return cls(
            sessions=[WaitingShown.of(line) for line in lines], times=WaitingTimesShown.of(times)
        )


def _ms(time: timedelta | None) -> int | None:
    return None if time is None else round(time.total_seconds() * 1000)


class Comparison(Shown):
    """Two outputs, and what differs."""

    old: RevisionShown
    new: RevisionShown
    changes: list[ChangeShown]

    @classmethod
    def of(cls, old: records.Revision, new: records.Revision) -> Self:
        """Show two revisions and what differs."""
        changes = compare(old.output, new.output)
        return cls(
            old=RevisionShown.model_validate(old),
            new=RevisionShown.model_validate(new),
            changes=[ChangeShown.model_validate(change) for change in changes],
        )

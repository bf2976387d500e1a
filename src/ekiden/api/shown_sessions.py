"""Sessions as callers are shown them: one, many, and what became of those that were archived."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import ConfigDict, Field

from ekiden.api.shown import Shown
from ekiden.core import records
from ekiden.core.budget import Spent


class Failure(Shown):
    """What went wrong last, and when it is tried again."""

    model_config = ConfigDict(extra="allow")

    message: str | None = None
    kind: str | None = None
    phase: int | None = None
    step: str | None = None
    item: int | None = None
    attempt: int | None = None
    task_id: int | None = None
    retry_at: datetime | None = None


class OptionsShown(Shown):
    """How the session runs. Times in ms."""

    auto_progress_steps: bool
    auto_progress_phases: bool
    max_retries: int
    retry_delay: int
    worker_timeout: int
    gates: dict[str, Any] = Field(description="policies over the flow's, by phase")
    models: dict[str, str] = Field(description='"provider:model" by place')


class BudgetShown(Shown):
    """What may be spent, and what is gone of it. A limit that is null is none."""

    max_cost_usd: float | None
    max_tokens: int | None
    cost_usd: float
    tokens: int
    reserved_cost_usd: float = Field(description="that calls under way may still cost")
    reserved_tokens: int = Field(description="that calls under way may still take")
    calls_without_price: int

    @classmethod
    def of(cls, spent: Spent) -> Self:
        """Show a budget."""
        return cls(
            max_cost_usd=None if spent.max_cost_usd is None else float(spent.max_cost_usd),
            max_tokens=spent.max_tokens,
            cost_usd=float(spent.cost_usd),
            tokens=spent.tokens,
            reserved_cost_usd=float(spent.reserved_cost_usd),
            reserved_tokens=spent.reserved_tokens,
            calls_without_price=spent.unpriced,
        )


class RevisionShown(Shown):
    """One version of a phase's output."""

    id: int
    phase: int
    generation: int
    number: int
    author: str
    created_at: datetime
    approved_at: datetime | None
    approved_by: str | None = Field(None, description="who; 'flow' where no gate was")
    complaint: str | None = Field(None, description="what the gate's check says of it")
    comment: str | None = Field(None, description="why it was edited")
    session_id: str | None = Field(None, description="where several sessions are compared")
    output: Any


class SessionShown(Shown):
    """One session, with every revision of its phases' outputs."""

    session_id: str
    flow: str
    flow_version: str
    flow_title: str
    status: str
    phase: int
    step: str
    generation: int
    title: str
    input: dict[str, Any]
    options: OptionsShown
    budget: BudgetShown | None = Field(description="of the session as a whole")
    budgets: dict[str, BudgetShown] = Field(description="of its phases, by number")
    created_by: str
    fork_of: str | None = Field(description="the session it was forked from")
    error: Failure | None
    has_worker: bool = Field(description="a living worker knows this version of the flow")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    archived_at: datetime | None = Field(
        None, description="since when lists and counts leave it out"
    )
    revisions: list[RevisionShown]

    @classmethod
    def of(
        cls,
        session: records.Session,
        revisions: list[records.Revision],
        budgets: Sequence[Spent],
    ) -> Self:
        """Show a session."""
        limits = {b.phase: BudgetShown.of(b) for b in budgets}
        return cls(
            session_id=session.id,
            flow=session.flow,
            flow_version=session.flow_version,
            flow_title=session.flow_title,
            status=session.status,
            phase=session.phase,
            step=session.step,
            generation=session.generation,
            title=session.title,
            input=session.input,
            options=OptionsShown(
                auto_progress_steps=session.auto_steps,
                auto_progress_phases=session.auto_phases,
                max_retries=session.max_retries,
                retry_delay=round(session.retry_delay.total_seconds() * 1000),
                worker_timeout=round(session.timeout.total_seconds() * 1000),
                gates=session.gates,
                models=session.models,
            ),
            budget=limits.pop(0, None),
            budgets={str(phase): limit for phase, limit in limits.items()},
            created_by=session.created_by,
            fork_of=session.parent_id,
            error=None if session.error is None else Failure.model_validate(session.error),
            has_worker=session.has_worker,
            created_at=session.created_at,
            updated_at=session.updated_at,
            completed_at=session.completed_at,
            archived_at=session.archived_at,
            revisions=[RevisionShown.model_validate(r) for r in revisions],
        )


class SessionLineShown(Shown):
    """One session in a list."""

    session_id: str = Field(validation_alias="id")
    flow: str
    status: str
    phase: int
    step: str
    title: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    archived_at: datetime | None = Field(
        None, description="since when lists and counts leave it out"
    )


class SessionList(Shown):
    """Sessions, newest first."""

    sessions: list[SessionLineShown]
    next_cursor: str | None = Field(description="ask for what follows with ?cursor=")

    @classmethod
    def of(cls, found: Sequence[records.SessionLine], limit: int) -> Self:
        """Show at most ``limit``; one more was asked for, to know whether any follow."""
        page = found[:limit]
        return cls(
            sessions=[SessionLineShown.model_validate(line) for line in page],
            next_cursor=page[-1].id if len(found) > limit else None,
        )


class ArchivedShown(Shown):
    """What became of one session that was to be archived, or brought back."""

    session_id: str
    archived: bool = Field(description="whether it is archived now")
    refused: str | None = Field(description="why it is not as it was asked for")


class ArchivedList(Shown):
    """What became of each, in the order they were given in."""

    sessions: list[ArchivedShown]

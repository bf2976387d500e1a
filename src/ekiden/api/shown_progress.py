"""Where a session is, and its history as it happens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ekiden.api.shown import Shown
from ekiden.api.shown_sessions import Failure


class StepProgress(Shown):
    """One step of a phase."""

    step: str
    status: str
    tasks: int
    completed: int
    running: int = 0
    failed: int = 0
    open: int
    started_at: datetime | None = None
    completed_at: datetime | None = None


class PhaseProgress(Shown):
    """One phase of the flow."""

    phase: int
    name: str
    title: str
    titles: dict[str, str] = Field(description="the title by language")
    status: str
    generation: int | None
    steps: list[StepProgress]


class WaitingFor(Shown):
    """What the session waits for, and what to do about it."""

    kind: str = Field(
        description="review, process-async, resume, items, budget, worker, retry, provider, "
        "answer, model or claim"
    )
    message: str


class Wait(Shown):
    """What a task was given back to wait for; nothing went wrong."""

    message: str
    kind: str = Field(
        description="provider (busy, limited or down), answer (it is being made), claim (workers "
        "that have the model are busy) or model (no worker has it: start one)"
    )
    phase: int
    step: str
    item: int
    attempt: int
    task_id: int
    until: datetime = Field(description="when it looks again")


class Usage(Shown):
    """What the session's calls took; null is unknown, never zero."""

    calls: int
    input_tokens: int | None
    output_tokens: int | None
    models: list[str]


class Cost(Shown):
    """What they cost, as far as prices are known."""

    usd: float | None
    calls_without_price: int


class Progress(Shown):
    """Where a session is."""

    current_phase: int
    current_step: str
    completed_phases: list[int]
    can_proceed: bool = Field(description="there is a gate: proceed-next-phase passes it")
    requires_manual_trigger: bool = Field(description="nothing goes on until a person acts")
    session_id: str
    flow: str
    status: str
    title: str
    phases: list[PhaseProgress]
    waiting_for: WaitingFor | None
    revision: int | None = Field(description="what waits at the gate; also the ETag")
    complaint: str | None = Field(description="what the gate's check says of it")
    approved_by: list[str] = Field(description="who has approved it, where several must")
    missing: int = Field(description="at a gate: approvals still needed")
    stop: dict[str, Any] | None = Field(description="why it paused by itself: budget or items")
    fork_of: str | None = Field(description="the session it was forked from")
    waiting_since: datetime | None = Field(description="for a person")
    waited_for_people_ms: int = Field(description="in all; never part of machine time")
    error: Failure | None
    wait: Wait | None
    usage: Usage
    cost: Cost
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    archived_at: datetime | None = Field(
        None, description="since when lists and counts leave it out"
    )


class Started(Progress):
    """Where a session is after process-async."""

    started: int = Field(description="tasks that this request let go; 0 when none was held")


class EventShown(Shown):
    """One line of a session's history; the data of a server-sent event."""

    id: int
    session_id: str
    type: str
    phase: int | None
    step: str | None
    task_id: int | None
    data: dict[str, Any]
    created_at: datetime


class PartialShown(Shown):
    """A piece of a running call's text; the data of the server-sent event ``partial``."""

    task_id: int
    attempt: int
    call: int = Field(description="the call's number within the attempt")
    seq: int = Field(description="from 1: the pieces of a call in this order are its text")
    text: str

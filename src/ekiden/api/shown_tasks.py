"""Tasks, their attempts and calls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ekiden.api.shown import Shown


class TaskShown(Shown):
    """One task."""

    id: int
    phase: int
    step: str
    item: int = Field(description="position in the fan-out, from 0")
    generation: int
    status: str
    held: bool = Field(validation_alias="awaiting", description="waits for process-async or resume")
    tolerated: bool = Field(description="failed, and its siblings go on without it")
    attempt: int
    available_at: datetime
    worker_id: int | None
    request: Any
    result: Any
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class TaskList(Shown):
    """The tasks of a session, in running order."""

    tasks: list[TaskShown]
    next_cursor: int | None = Field(description="ask for what follows with ?cursor=")


class PartialText(Shown):
    """What a streamed call has said so far, or had when it ended: a prefix of the answer."""

    call: int = Field(description="the call's number within the attempt")
    text: str
    chunks: int


class RanOn(Shown):
    """The worker that ran an attempt."""

    host: str | None
    pid: int | None
    software: str | None = Field(description="its version of Ekiden")


class AttemptShown(Shown):
    """One try of a task; RUNNING is the one that has not ended."""

    number: int
    worker_id: int
    outcome: str
    error: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime | None
    retry_at: datetime | None
    partials: list[PartialText] = Field(
        default=[], description="the text of its streamed calls, saved about twice a second"
    )
    worker: RanOn | None = None
    logs: list[dict[str, Any]] | None = Field(
        None, description="what it logged, the newest lines, oldest first; kept when it failed"
    )


class CallShown(Shown):
    """One request to a provider, as the ledger has it."""

    id: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    error: str | None
    http_status: int | None = Field(
        description="of the answer, or of one that broke off; 0 when not even its head came"
    )
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    answer_bytes: int | None
    started_at: datetime
    finished_at: datetime


class AttemptList(Shown):
    """The attempts of a task and the calls they made."""

    task_id: int
    task: TaskShown
    attempts: list[AttemptShown]
    calls: list[CallShown]

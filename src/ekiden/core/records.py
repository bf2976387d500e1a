"""What people are shown: read-only views of what is stored. JSON columns arrive decoded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session with its flow."""

    id: str
    flow: str
    flow_version: str
    flow_title: str
    flow_id: int
    flow_phases: list[dict[str, Any]]  # [{name, title, titles, steps, fansOut}]
    status: str
    phase: int  # the cursor
    step: str
    generation: int  # of the current phase
    open_tasks: int  # of the current step
    title: str
    input: dict[str, Any]
    auto_steps: bool
    auto_phases: bool
    max_retries: int
    retry_delay: timedelta
    timeout: timedelta
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    has_worker: bool  # a living worker knows this version of the flow


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLine:
    """One session in a list."""

    id: str
    flow: str
    status: str
    phase: int
    step: str
    title: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCount:
    """How far one step of a phase's newest generation is."""

    phase: int
    generation: int
    step: str
    total: int
    completed: int
    running: int
    failed: int
    cancelled: int
    queued: int  # due now or later
    held: int  # waiting for process-async or resume
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRetry:
    """A failed attempt that will be repeated."""

    id: int  # of the task
    phase: int
    step: str
    item: int
    attempt: int
    error: dict[str, Any]
    available_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUsage:
    """What a session's calls took. None is unknown, never zero."""

    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    unpriced: int  # calls whose price is not known
    models: list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One version of a phase's output."""

    id: int
    phase: int
    generation: int
    number: int
    author: str
    created_at: datetime
    approved_at: datetime | None
    output: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """One task of a session."""

    id: int
    phase: int
    step: str
    item: int
    generation: int
    status: str
    queued: bool
    awaiting: bool
    attempt: int
    available_at: datetime
    worker_id: int | None
    request: Any
    result: Any
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """One attempt of a task, ended or (outcome RUNNING) not."""

    number: int
    worker_id: int
    outcome: str
    error: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLine:
    """One call of the ledger, without its bytes."""

    id: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    error: str | None
    http_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    answer_bytes: int | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptInside:
    """Where an attempt ran, and what it logged if it failed."""

    number: int
    host: str | None
    pid: int | None
    software: str | None  # the worker's version of Ekiden
    logs: list[dict[str, Any]] | None  # the newest lines, oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInside:
    """One call of the ledger with its request and the beginning of its answer."""

    id: int
    task_id: int
    phase: int
    step: str
    item: int
    generation: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    error: str | None
    http_status: int | None
    content_type: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    started_at: datetime
    finished_at: datetime
    request: bytes
    request_hash: str
    answer_bytes: int | None
    answer: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialText:
    """What one call of an attempt has said so far, or had when it ended."""

    attempt: int
    call: int  # its number within the attempt, from 1
    text: str
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """One chunk of a streamed answer: the text of a call is its chunks in the order of ``seq``."""

    session_id: str
    task_id: int
    attempt: int
    call: int  # its number within the attempt, from 1
    seq: int  # from 1, without gaps
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLine:
    """One draft of a completed session."""

    id: int
    session_id: str
    number: int
    title: str
    body: dict[str, Any]
    sources: list[dict[str, Any]]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLine:
    """One worker."""

    id: int
    host: str
    pid: int
    software: str
    model: str | None
    busy: int
    capacity: int
    started_at: datetime
    seen_at: datetime
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLine:
    """The newest version of a flow."""

    id: int
    name: str
    version: str
    title: str
    phases: list[dict[str, Any]]
    input_schema: dict[str, Any]
    registered_at: datetime
    has_worker: bool

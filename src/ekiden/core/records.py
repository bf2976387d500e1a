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
    created_by: str
    parent_id: str | None  # the session it was forked from
    parent_phase: int | None  # whose outputs it shares up to here
    gates: dict[str, dict[str, Any]]  # policies over the flow's, by phase
    models: dict[str, str]  # "provider:model" by place
    kept: list[int]  # after going back: later phases whose output still holds
    stop: dict[str, Any] | None  # why it paused by itself
    waiting_since: datetime | None  # for a person
    waited: timedelta  # for people, in all
    archived_at: datetime | None  # put away: lists and counts leave it out until asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The revision that a gate would approve."""

    id: int
    complaint: str | None  # of the flow's check
    approved_by: list[str]  # where several must


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewLine:
    """One decision over a session."""

    id: int
    phase: int
    generation: int | None  # of the phase: the one decided on, or the one begun
    step: str | None  # where a rerun begins
    verb: str
    revision_id: int | None  # what was looked at
    actor: str
    comment: str | None
    passes: bool  # an approval that passed its gate; others counted towards it
    waited: timedelta | None  # how long the session had waited for it
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingLine:
    """One session that waits for a person."""

    id: str
    flow: str
    title: str
    status: str
    phase: int
    step: str
    phase_title: str
    stop: dict[str, Any] | None
    waiting_since: datetime
    age: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTimes:
    """How long sessions wait for people. None where there is nothing to measure."""

    waiting: int
    age_p50: timedelta | None
    age_p90: timedelta | None
    decided: int  # in the last 30 days
    took_p50: timedelta | None
    took_p90: timedelta | None


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
    archived_at: datetime | None


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
    tolerated: int  # failed items that the others go on without
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRetry:
    """An attempt that will be repeated: it failed, or it only waits."""

    id: int  # of the task
    phase: int
    step: str
    item: int
    attempt: int
    error: dict[str, Any]
    available_at: datetime
    waits: bool  # its attempt was given back: nothing went wrong


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
    approved_by: str | None = None
    complaint: str | None = None  # of the flow's check
    comment: str | None = None  # why it was edited
    session_id: str | None = None  # where revisions of several sessions are looked at


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
    tolerated: bool  # failed, and its siblings go on without it
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
    request_id: str | None  # the provider's own
    first_token: timedelta | None  # from the request to the first text, when it was streamed
    price_version: str | None  # which price list the cost is from
    finish_reason: str | None
    citations: Any
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

"""What callers are shown, as OpenAPI shows it. camelCase outside, times in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ekiden.core import records


class Shown(BaseModel):
    """What callers are shown."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        from_attributes=True,
    )


class FieldProblem(Shown):
    """What is wrong with one field."""

    field: str = Field(description="dotted path; empty for the body as a whole")
    message: str


class Problem(Shown):
    """RFC 9457 problem details: why a request was refused, and what to do."""

    type: str = Field(description="urn:ekiden:problem:…, stable")
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] | None = None


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

    kind: str = Field(description="review, process-async, resume, worker, retry or claim")
    message: str


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
    stop: dict[str, Any] | None = Field(description="why it paused by itself: budget or items")
    fork_of: str | None = Field(description="the session it was forked from")
    waiting_since: datetime | None = Field(description="for a person")
    waited_for_people_ms: int = Field(description="in all; never part of machine time")
    error: Failure | None
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


class OptionsShown(Shown):
    """How the session runs. Times in ms."""

    auto_progress_steps: bool
    auto_progress_phases: bool
    max_retries: int
    retry_delay: int
    worker_timeout: int
    gates: dict[str, Any] = Field(description="policies over the flow's, by phase")
    models: dict[str, str] = Field(description='"provider:model" by place')


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
    def of(cls, session: records.Session, revisions: list[records.Revision]) -> Self:
        """Show a session."""
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


class ArchivedShown(Shown):
    """What became of one session that was to be archived, or brought back."""

    session_id: str
    archived: bool = Field(description="whether it is archived now")
    refused: str | None = Field(description="why it is not as it was asked for")


class ArchivedList(Shown):
    """What became of each, in the order they were given in."""

    sessions: list[ArchivedShown]


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
    http_status: int | None
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


class DraftShown(Shown):
    """One draft of a completed session."""

    id: int
    session_id: str
    number: int
    title: str
    body: dict[str, Any]
    sources: list[Any]
    created_at: datetime


class DraftList(Shown):
    """Drafts."""

    drafts: list[DraftShown]


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


class FlowShown(Shown):
    """The newest version of a flow."""

    name: str
    version: str
    title: str
    phases: list[dict[str, Any]]
    input_schema: dict[str, Any]
    has_worker: bool
    registered_at: datetime


class FlowList(Shown):
    """The flows that workers have registered."""

    flows: list[FlowShown]


class WorkerShown(Shown):
    """One worker."""

    id: int
    host: str
    pid: int
    state: str
    busy: int
    capacity: int
    started_at: datetime
    seen_at: datetime
    model: str | None
    software: str


class WorkerList(Shown):
    """The workers present, and those that left within a day."""

    workers: list[WorkerShown]


class Health(Shown):
    """That it is well."""

    status: str

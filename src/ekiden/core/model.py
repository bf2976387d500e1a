"""The words of Ekiden as types. Each state says what it means beside its name.

The texts of these enums are the texts of the CHECK constraints in the schema; a test holds them
together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Any


class StepKind(StrEnum):
    """The three steps of a phase, in order."""

    THINK = "THINK"  # plan the work
    EXECUTE = "EXECUTE"  # do it, one task an item; a phase may leave it out
    INTEGRATE = "INTEGRATE"  # make the phase's output from plan and results


class TaskState(StrEnum):
    """Where a task is."""

    QUEUED = "QUEUED"  # waits to be claimed, now or when it is due; or is held for a person
    RUNNING = "RUNNING"  # claimed by a worker, under its lease
    COMPLETED = "COMPLETED"  # its result is stored; never changes again
    FAILED = "FAILED"  # retries used up, or no retry can help; resume queues it again
    CANCELLED = "CANCELLED"  # its session was cancelled


class SessionState(StrEnum):
    """Where a session is."""

    RUNNING = "RUNNING"  # steps are running, due, or (AUTO_PROGRESS_STEPS=false) held
    AWAITING_REVIEW = "AWAITING_REVIEW"  # at a gate
    PAUSED = "PAUSED"  # a person paused it: what runs may end, nothing new starts
    FAILED = "FAILED"  # a task failed for good; resume goes on from there
    COMPLETED = "COMPLETED"  # all phases are done
    CANCELLED = "CANCELLED"  # a person ended it


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "COMPLETED"  # its result was stored
    RETRIED = "RETRIED"  # it failed and the task was queued again
    FAILED = "FAILED"  # it failed and the task with it
    LOST = "LOST"  # its worker gave no sign of life
    RELEASED = "RELEASED"  # given back: its worker stopped, or it waits for something; not counted
    CANCELLED = "CANCELLED"  # its session was cancelled meanwhile


class WorkerState(StrEnum):
    """Where a worker is."""

    ALIVE = "ALIVE"  # claims tasks
    DRAINING = "DRAINING"  # finishes what it has, claims nothing
    STOPPED = "STOPPED"  # said goodbye
    LOST = "LOST"  # lease over; its tasks were rescued


class CallOutcome(StrEnum):
    """What became of a call."""

    ANSWERED = "ANSWERED"  # the raw answer is in the ledger
    INVALID = "INVALID"  # it is, but it could not be used
    FAILED = "FAILED"  # nothing usable came back
    ABORTED = "ABORTED"  # stopped in the middle: it was asked and may have cost something


class Verb(StrEnum):
    """The decisions a person takes over a session's outputs; each is a row of ``reviews``."""

    APPROVE = "approve"  # the output holds; the next phase begins
    EDIT = "edit"  # a new revision by a person, which waits for approval
    REJECT = "reject"  # the phase runs again, and its THINK is told why
    RERUN = "rerun"  # so does a phase that was done, from any of its steps
    ACCEPT = "accept"  # go on without the items that failed
    RETRY = "retry"  # try only those again
    BUDGET = "budget"  # set a budget, and go on


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent, by a session or one of its phases. None is no limit."""

    max_cost_usd: Decimal | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One decision of one person."""

    verb: Verb
    actor: str
    comment: str | None = None  # why; for reject what shall be different
    revision: int | None = None  # what was looked at; None takes what stands
    seen: str | None = None  # where the session stood then (refusals.place); None is wherever it is
    key: str | None = None  # Idempotency-Key: the same key is the same decision
    phase: int | None = None  # edit, rerun, budget: which one; None is the current one
    step: StepKind = StepKind.THINK  # rerun: where it begins
    output: Any = None  # edit: what the phase's output shall be
    model: str | None = None  # reject, rerun: "provider:model" for this run
    variables: dict[str, Any] = field(default_factory=dict)  # reject, rerun: ctx.variables
    budget: Budget | None = None  # budget: the new one
    keep: bool = False  # budget: where the new one has no limit, the one that was set stays
    timed_out: bool = False  # approve: nobody decided in time, and that is what the flow wants then

    def digest(self) -> bytes:
        """Return what tells it from another decision under the same key.

        It is of what was asked for, not of what that came to: so a repeat of "approve what stands"
        is the same request whatever stands by then.
        """
        # What is left out is not in it: a field that is added one day changes no key of today.
        asked = {k: v for k, v in asdict(self).items() if k != "key" and v is not None}
        said = json.dumps(asked, sort_keys=True, default=str)
        return blake2b(said.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """What a decision did."""

    status: str  # of the session afterwards; of a repeated one: now
    phase: int  # where the session is; of a repeated one: that it was about
    missing: int = 0  # approvals still needed
    revision: int | None = None  # that was approved, or that an edit has made
    stale: tuple[int, ...] = ()  # later phases that will run again
    kept: tuple[int, ...] = ()  # later phases whose output still holds
    repeated: bool = False  # it was taken before, under the same key


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one session runs; defaults come from the settings when it is created."""

    auto_steps: bool = True  # AUTO_PROGRESS_STEPS
    auto_phases: bool = False  # AUTO_PROGRESS_PHASES
    max_retries: int = 3  # MAX_RETRIES: tries after the first
    retry_delay: timedelta = timedelta(seconds=1)  # RETRY_DELAY: base of the back-off
    timeout: timedelta = timedelta(minutes=5)  # WORKER_TIMEOUT: longest one attempt may take
    gates: dict[int, dict[str, Any]] = field(default_factory=dict)  # over the flow's, by phase
    models: dict[str, str] = field(default_factory=dict)  # "provider:model" by "", "1", "1.THINK"
    budgets: dict[int, Budget] = field(default_factory=dict)  # by phase; 0 is the whole session


@dataclass(slots=True, kw_only=True)
class ClaimedTask:
    """A task this worker holds. Not frozen: it is made once a step, on the hot path."""

    id: int
    session_id: str
    flow_id: int
    phase: int
    step: str
    item: int  # position in the fan-out, from 0
    generation: int  # of the phase
    attempt: int  # the fencing token
    budget_from: int  # attempts up to this one no longer count (a person resumed the task)
    request: str | None = None  # JSON of the item, for EXECUTE that fans out
    delivered: str | None = None  # JSON of a result delivered from outside


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionData:
    """What a worker must know of a session to run its steps. All JSON is text, as stored."""

    session_id: str
    flow_id: int
    phase: int
    generation: int
    options: Options
    input: str
    outputs: dict[int, str]  # approved outputs of the phases before, by phase number
    plan: str | None  # result of THINK in this generation
    found: list[str]  # results of EXECUTE in this generation, in item order
    kept: frozenset[int] = frozenset()  # later phases whose output still holds, after going back
    feedback: Feedback | None = None  # what a person wants to be different this time
    model: str | None = None  # "provider:model" for this run of the phase
    variables: dict[str, Any] = field(default_factory=dict)  # of this run of the phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a person said of the output before."""

    note: str
    previous: str | None  # that output, as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """What went wrong, as it is stored and shown."""

    kind: str  # class name, e.g. ModelUnavailable
    message: str  # for people
    retryable: bool
    detail: str | None = None  # traceback, for developers

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored."""
        out: dict[str, Any] = {
            "kind": self.kind,
            "message": self.message,
            "retryable": self.retryable,
        }
        if self.detail:
            out["detail"] = self.detail
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a session's history."""

    id: int
    session_id: str
    type: str
    phase: int | None
    step: str | None
    task_id: int | None
    data: dict[str, Any]
    created_at: datetime

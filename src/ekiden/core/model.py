"""The words of Ekiden as types. Each state says what it means beside its name.

The texts of these enums are the texts of the CHECK constraints in the schema; a test holds them
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
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
    RELEASED = "RELEASED"  # its worker stopped and gave the task back
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one session runs; defaults come from the settings when it is created."""

    auto_steps: bool = True  # AUTO_PROGRESS_STEPS
    auto_phases: bool = False  # AUTO_PROGRESS_PHASES
    max_retries: int = 3  # MAX_RETRIES: tries after the first
    retry_delay: timedelta = timedelta(seconds=1)  # RETRY_DELAY: base of the back-off
    timeout: timedelta = timedelta(minutes=5)  # WORKER_TIMEOUT: longest one attempt may take


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

"""What may follow what. Python decides, SQL permits.

The two tables below are the state machine; ``ARCHITECTURE.md`` draws them, and a test crosses every
state with every event through both this module and a real PostgreSQL, and wants the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ekiden.core.gates import next_phase
from ekiden.core.model import SessionState, StepKind, TaskState


class TaskEvent(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"  # a worker takes it
    COMPLETE = "complete"  # its result is stored
    RETRY = "retry"  # it failed; it is due again later
    FAIL = "fail"  # it failed for good
    RESCUE = "rescue"  # its worker is gone; it is due again at once
    DELIVER = "deliver"  # its result came from outside; a worker checks and completes it
    RESUME = "resume"  # a person resumed its session
    CANCEL = "cancel"  # a person cancelled its session


class SessionEvent(StrEnum):
    """What can happen to a session."""

    ADVANCE = "advance"  # a step closed and another follows at once
    OPEN_GATE = "open_gate"  # a phase closed and a person must look
    FINISH = "finish"  # the last phase closed
    FAIL = "fail"  # a task failed for good
    START = "start"  # process-async: held steps may run
    APPROVE = "approve"  # a person lets the next phase begin
    EDIT = "edit"  # a person changes an output, and its gate waits for approval
    REJECT = "reject"  # a person wants the phase done again, with a note
    RERUN = "rerun"  # a person goes back to a step of a phase that was done
    STOP = "stop"  # a budget is used up, or too many items failed: a person must decide
    ACCEPT = "accept"  # a person goes on without the items that failed
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_T, _TE = TaskState, TaskEvent
TASK_TRANSITIONS: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (_T.QUEUED, _TE.CLAIM): _T.RUNNING,
    (_T.RUNNING, _TE.COMPLETE): _T.COMPLETED,
    (_T.RUNNING, _TE.RETRY): _T.QUEUED,
    (_T.RUNNING, _TE.FAIL): _T.FAILED,
    (_T.RUNNING, _TE.RESCUE): _T.QUEUED,
    (_T.RUNNING, _TE.DELIVER): _T.QUEUED,
    (_T.FAILED, _TE.RESUME): _T.QUEUED,
    (_T.QUEUED, _TE.CANCEL): _T.CANCELLED,
    (_T.RUNNING, _TE.CANCEL): _T.CANCELLED,
    (_T.FAILED, _TE.CANCEL): _T.CANCELLED,
}

_S, _SE = SessionState, SessionEvent
SESSION_TRANSITIONS: dict[tuple[SessionState, SessionEvent], SessionState] = {
    (_S.RUNNING, _SE.ADVANCE): _S.RUNNING,
    (_S.RUNNING, _SE.OPEN_GATE): _S.AWAITING_REVIEW,
    (_S.RUNNING, _SE.FINISH): _S.COMPLETED,
    (_S.RUNNING, _SE.FAIL): _S.FAILED,
    (_S.RUNNING, _SE.START): _S.RUNNING,
    (_S.RUNNING, _SE.PAUSE): _S.PAUSED,
    (_S.RUNNING, _SE.CANCEL): _S.CANCELLED,
    # What was running when a person paused may end; what follows it is held.
    (_S.PAUSED, _SE.ADVANCE): _S.PAUSED,
    (_S.PAUSED, _SE.OPEN_GATE): _S.AWAITING_REVIEW,
    (_S.PAUSED, _SE.FINISH): _S.COMPLETED,
    (_S.PAUSED, _SE.FAIL): _S.FAILED,
    (_S.PAUSED, _SE.RESUME): _S.RUNNING,
    (_S.PAUSED, _SE.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _SE.STOP): _S.PAUSED,
    (_S.PAUSED, _SE.STOP): _S.PAUSED,
    (_S.PAUSED, _SE.ACCEPT): _S.RUNNING,
    (_S.PAUSED, _SE.EDIT): _S.AWAITING_REVIEW,
    (_S.PAUSED, _SE.RERUN): _S.RUNNING,
    (_S.AWAITING_REVIEW, _SE.APPROVE): _S.RUNNING,
    (_S.AWAITING_REVIEW, _SE.EDIT): _S.AWAITING_REVIEW,
    (_S.AWAITING_REVIEW, _SE.REJECT): _S.RUNNING,
    (_S.AWAITING_REVIEW, _SE.RERUN): _S.RUNNING,
    (_S.AWAITING_REVIEW, _SE.CANCEL): _S.CANCELLED,
    # A sibling of the task that failed may fail as well.
    (_S.FAILED, _SE.FAIL): _S.FAILED,
    (_S.FAILED, _SE.STOP): _S.FAILED,
    (_S.FAILED, _SE.RESUME): _S.RUNNING,
    (_S.FAILED, _SE.EDIT): _S.AWAITING_REVIEW,
    (_S.FAILED, _SE.RERUN): _S.RUNNING,
    (_S.FAILED, _SE.CANCEL): _S.CANCELLED,
    # What was done can be taken up again; nothing of it is overwritten.
    (_S.COMPLETED, _SE.EDIT): _S.AWAITING_REVIEW,
    (_S.COMPLETED, _SE.RERUN): _S.RUNNING,
}


def task_after(state: TaskState, event: TaskEvent) -> TaskState | None:
    """Return the task's next state, or None where the event is refused."""
    return TASK_TRANSITIONS.get((state, event))


def session_after(state: SessionState, event: SessionEvent) -> SessionState | None:
    """Return the session's next state, or None where the event is refused."""
    return SESSION_TRANSITIONS.get((state, event))


@dataclass(frozen=True, slots=True)
class Transition:
    """What follows when a step closes.

    Frozen and without reference to a session, so one instance serves every session at that place.
    """

    event: SessionEvent  # ADVANCE, OPEN_GATE or FINISH
    phase: int  # the cursor afterwards
    step: StepKind
    new_phase: bool = False  # the next task begins another phase
    hold: bool = False  # the next tasks wait for process-async


def decide(
    kinds: Callable[[int], tuple[StepKind, ...]],
    phases: int,
    *,
    phase: int,
    step: StepKind,
    auto_steps: bool,
    gate: bool,
    kept: frozenset[int] = frozenset(),
) -> Transition:
    """Decide what follows once every task of a step is complete.

    Args:
        kinds: the step kinds of a phase, by its number.
        phases: how many phases the flow has.
        phase: the phase of the step that closed, from 1.
        step: the step that closed.
        auto_steps: AUTO_PROGRESS_STEPS of the session.
        gate: whether a person looks at the phase's output.
        kept: later phases whose approved output still holds, after going back.
    """
    steps = kinds(phase)
    if step is not steps[-1]:
        following = steps[steps.index(step) + 1]
        return Transition(SessionEvent.ADVANCE, phase, following, hold=not auto_steps)
    if phase == phases:
        return Transition(SessionEvent.FINISH, phase, step)
    if gate:
        return Transition(SessionEvent.OPEN_GATE, phase, step)
    following_phase = next_phase(phases, phase, kept)
    if following_phase is None:
        return Transition(SessionEvent.FINISH, phase, step)
    return Transition(
        SessionEvent.ADVANCE,
        following_phase,
        kinds(following_phase)[0],
        new_phase=True,
        hold=not auto_steps,
    )

"""What the state of a session does not allow, and what a person can do in its place."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_never

from ekiden.core.gates import within_reach
from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import SessionState
from ekiden.errors import Conflict


def instead(status: SessionState, session_id: str, stop: str | None = None) -> Conflict:
    """Refuse what this state does not allow, and say what a person can do in it.

    Args:
        status: the session's.
        session_id: the session.
        stop: the kind of its stop, where it paused by itself.
    """
    if stop == "items":
        return Conflict(
            f"Items of session {session_id} failed: accept what there is (ekiden sessions accept "
            f"{session_id}), or retry only those (ekiden sessions retry {session_id}).",
            kind="items-failed",
        )
    match status:
        case SessionState.RUNNING:
            advice = "It is running: pause it first."
        case SessionState.AWAITING_REVIEW:
            advice = "It waits at a gate: approve, edit, reject or rerun."
        case SessionState.PAUSED:
            advice = "Resume it."
        case SessionState.FAILED:
            advice = "Resume it; it goes on from the step that failed."
        case SessionState.COMPLETED:
            advice = "It is done; a phase of it can be run again."
        case SessionState.CANCELLED:
            advice = "It was cancelled; create a new one, or fork it."
        case _:
            assert_never(status)
    return Conflict(f"Session {session_id} is {status}. {advice}", kind=status)


def beyond(phase: int, *, status: SessionState, current: int) -> Conflict | None:
    """Refuse to change a phase that comes after the one where the session is; None where it may."""
    if within_reach(phase, current=current, completed=status is SessionState.COMPLETED):
        return None
    return Conflict(
        f"The session is back at phase {current}, and phase {phase} may depend on what "
        f"becomes of that. Bring phase {current} through its gate first, or choose it or "
        "one before.",
        kind="later-phase", phase=phase, current=current,
    )  # fmt: skip


def no_edit(
    phase: int,
    *,
    session_id: str,
    status: SessionState,
    current: int,
    phases: int,
    has_output: bool,
) -> Conflict | None:
    """Refuse an edit that could not be stored, whatever is typed; None where one may be made.

    Args:
        phase: whose output would be edited.
        session_id: the session.
        status: the session's.
        current: the phase where it is.
        phases: how many its flow has.
        has_output: whether the newest run of the phase has an output.
    """
    if session_after(status, SessionEvent.EDIT) is None:
        return instead(status, session_id)
    if not has_output:
        said = f"Phase {phase} has no output yet, so there is nothing to edit."
        return Conflict(said, kind="no-output")
    if refused := beyond(phase, status=status, current=current):
        return refused
    if phase == phases:
        return Conflict(
            f"Phase {phase} is the last one: no gate follows, and the drafts are made of it. "
            "Edit the drafts, or rerun the phase.",
            kind="last-phase",
        )
    return None


def place(*, phase: int, step: str, generation: int, waiting_since: datetime | None) -> str:
    """Return what tells where a session stands from everywhere it stood before.

    A step is held once in a generation; items that are tried again may fail again, and then the
    session has waited since another moment.
    """
    since = "" if waiting_since is None else waiting_since.isoformat()
    return f"{phase}.{step}.{generation}.{since}"


def place_in(progress: dict[str, Any]) -> str:
    """Return where a session stands, of its progress."""
    phase = progress["currentPhase"]
    return place(
        phase=phase,
        step=progress["currentStep"],
        generation=progress["phases"][phase - 1]["generation"],
        waiting_since=progress["waitingSince"],
    )


def moved_on(session_id: str) -> Conflict:
    """Refuse what was meant for another place than where the session stands."""
    said = f"Session {session_id} has moved on since you looked. Nothing was decided: look again."
    return Conflict(said, kind="moved-on")

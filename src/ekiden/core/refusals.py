"""What the state of a session does not allow, and what a person can do in its place."""

from __future__ import annotations

from typing import assert_never

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

"""The progress of a session as one object: five fields to steer by, and the rest beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ekiden.core.gates import missing_approvals, policy_of
from ekiden.core.model import SessionState, StepKind
from ekiden.core.records import PendingRetry, Session, SessionUsage, Standing, StepCount


def progress(
    session: Session,
    counts: Sequence[StepCount],
    retry: PendingRetry | None,
    usage: SessionUsage,
    *,
    standing: Standing | None = None,
    approved: Collection[int] = (),
) -> dict[str, Any]:
    """Return the progress object (camelCase, JSON values and datetimes).

    Args:
        session: the session.
        counts: its steps' counts, newest generation of each phase.
        retry: the attempt it waits to repeat, if any.
        usage: what its calls took.
        standing: the newest output of the current phase, if it has one.
        approved: phases whose newest run has an approved output.
    """
    by_step = {(c.phase, c.step): c for c in counts}
    phases = [
        _phase(session, number, spec, by_step, approved)
        for number, spec in enumerate(session.flow_phases, 1)
    ]
    completed = [p["phase"] for p in phases if p["status"] == "COMPLETED"]
    at_gate = session.status == SessionState.AWAITING_REVIEW
    approved_by = standing.approved_by if at_gate and standing else []
    policy = policy_of(session.flow_phases, session.gates, session.phase)
    missing = missing_approvals(policy, approved_by) if at_gate else 0
    waiting = _waiting_for(session, counts, retry, approved_by=approved_by, missing=missing)
    return {
        "currentPhase": session.phase,
        "currentStep": session.step,
        "completedPhases": completed,
        "canProceed": at_gate,
        "requiresManualTrigger": waiting is not None and waiting["kind"] in _MANUAL,
        "sessionId": session.id,
        "flow": session.flow,
        "status": session.status,
        "title": session.title,
        "phases": phases,
        "waitingFor": waiting,
        "revision": standing.id if at_gate and standing else None,
        "complaint": standing.complaint if at_gate and standing else None,
        "approvedBy": approved_by,
        "missing": missing,
        "stop": session.stop,
        "forkOf": session.parent_id,
        "error": _error(session, retry),
        "wait": _wait(session, retry),
        "usage": {
            "calls": usage.calls,
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "models": usage.models or [],
        },
        "cost": {
            "usd": None if usage.cost_usd is None else float(usage.cost_usd),
            "callsWithoutPrice": usage.unpriced,
        },
        "waitingSince": session.waiting_since,
        "waitedForPeopleMs": round(session.waited.total_seconds() * 1000),
        "createdAt": session.created_at,
        "updatedAt": session.updated_at,
        "completedAt": session.completed_at,
        "archivedAt": session.archived_at,
    }


_MANUAL = {"review", "process-async", "resume", "items", "budget"}


def _phase(
    session: Session,
    number: int,
    spec: dict[str, Any],
    by_step: dict[tuple[int, str], StepCount],
    approved: Collection[int],
) -> dict[str, Any]:
    steps = [_step(kind, by_step.get((number, kind))) for kind in spec["steps"]]
    if number > session.phase and number not in session.kept and number in approved:
        status = "STALE"  # what it was made of has changed: it runs again
    elif steps[-1]["status"] == "COMPLETED" or (number in approved and number != session.phase):
        status = "COMPLETED"
    elif any(s["status"] != "PENDING" for s in steps):
        status = next(s["status"] for s in reversed(steps) if s["status"] != "PENDING")
        status = "RUNNING" if status == "COMPLETED" else status
    else:
        status = "PENDING"
    generation = max((c.generation for (p, _), c in by_step.items() if p == number), default=None)
    return {
        "phase": number,
        "name": spec["name"],
        "title": spec["title"],
        "titles": spec.get("titles", {}),
        "status": status,
        "generation": generation,
        "steps": steps,
    }


def _step(kind: str, count: StepCount | None) -> dict[str, Any]:
    if count is None:
        return {"step": StepKind(kind), "status": "PENDING", "tasks": 0, "completed": 0, "open": 0}
    if count.completed + count.tolerated == count.total and count.completed:
        status = "COMPLETED"
    elif count.failed:
        status = "FAILED"
    elif count.cancelled:
        status = "CANCELLED"
    elif count.running:
        status = "RUNNING"
    elif count.held:
        status = "HELD"
    else:
        status = "QUEUED"
    return {
        "step": StepKind(kind),
        "status": status,
        "tasks": count.total,
        "completed": count.completed,
        "running": count.running,
        "failed": count.failed,
        "open": count.total - count.completed - count.cancelled - count.tolerated,
        "startedAt": count.started_at,
        "completedAt": count.completed_at if status == "COMPLETED" else None,
    }


def _waiting_for(
    session: Session,
    counts: Sequence[StepCount],
    retry: PendingRetry | None,
    *,
    approved_by: Sequence[str],
    missing: int,
) -> dict[str, Any] | None:
    """Say what the session waits for, and what to do about it, or None while it runs."""
    now = [c for c in counts if c.phase == session.phase and c.step == session.step]
    match SessionState(session.status):
        case SessionState.AWAITING_REVIEW if approved_by:
            return {
                "kind": "review",
                "message": f"Phase {session.phase} is done and approved by "
                f"{', '.join(approved_by)}; {missing} more must approve (proceed-next-phase).",
            }
        case SessionState.AWAITING_REVIEW:
            return {
                "kind": "review",
                "message": f"Phase {session.phase} is done. Look at its output, then approve it "
                "(proceed-next-phase).",
            }
        case SessionState.FAILED:
            return {"kind": "resume", "message": "A step failed for good. Resume goes on from it."}
        case SessionState.PAUSED if session.stop is not None:
            return _stopped(session, session.stop, counts)
        case SessionState.PAUSED:
            return {"kind": "resume", "message": "Paused. Resume goes on where it stopped."}
        case SessionState.COMPLETED | SessionState.CANCELLED:
            return None
        case SessionState.RUNNING:
            pass
    if any(c.held for c in now):
        return {
            "kind": "process-async",
            "message": f"Phase {session.phase} {session.step} waits to be started (process-async).",
        }
    if any(c.running for c in now):
        return None
    if not session.has_worker:
        return {
            "kind": "worker",
            "message": f"No living worker knows flow {session.flow!r} in this session's version "
            f"({session.flow_version}). Start one: ekiden worker (your own flows: --flow "
            "module:name).",
        }
    if (wait := _wait(session, retry)) is not None:
        return {"kind": wait["kind"], "message": f"It waits: {wait['message']}"}
    if retry is not None:
        return {"kind": "retry", "message": "A failed attempt will be repeated when it is due."}
    return {"kind": "claim", "message": "Waiting for a worker that is free."}


def _stopped(session: Session, stop: dict[str, Any], counts: Sequence[StepCount]) -> dict[str, Any]:
    if stop["kind"] == "budget":
        return {"kind": "budget", "message": stop["message"]}
    step = next((c for c in counts if (c.phase, c.step) == (session.phase, session.step)), None)
    total = step.total if step else stop["failed"]
    return {
        "kind": "items",
        "message": f"{stop['failed']} of {total} items of phase {session.phase} failed for good. "
        "Accept what there is, retry only those, or cancel.",
    }


def _error(session: Session, retry: PendingRetry | None) -> dict[str, Any] | None:
    if session.error is not None:
        return session.error
    if retry is None or retry.waits:
        return None
    return _told(retry, retry.error.get("kind"), "retryAt")


# What is waited for, by the kind of error that the task was given back with.
_WAITED_FOR = {
    "StillAnswering": "answer",
    "ModelElsewhere": "claim",
    "ModelNowhere": "model",
}


def _wait(session: Session, retry: PendingRetry | None) -> dict[str, Any] | None:
    """Say what a task was given back to wait for. Nothing went wrong, so it is no error."""
    if retry is None or not retry.waits or session.status != SessionState.RUNNING:
        return None
    return _told(retry, _WAITED_FOR.get(retry.error["kind"], "provider"), "until")


def _told(retry: PendingRetry, kind: str | None, due: str) -> dict[str, Any]:
    return {
        "message": retry.error.get("message"),
        "kind": kind,
        "phase": retry.phase,
        "step": retry.step,
        "item": retry.item,
        "attempt": retry.attempt,
        "taskId": retry.id,
        due: retry.available_at,
    }

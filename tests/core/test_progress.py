"""The progress object, for each place a session can be at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ekiden.core.model import SessionState
from ekiden.core.progress import progress
from ekiden.core.records import PendingRetry, Session, SessionUsage, Standing, StepCount

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LONG, SHORT = ["THINK", "EXECUTE", "INTEGRATE"], ["THINK", "INTEGRATE"]
SESSION = Session(
    id="0190-1",
    flow="viral",
    flow_version="abc",
    flow_title="Viral",
    flow_id=1,
    flow_phases=[
        {"name": "trends", "title": "Trends", "titles": {"ja": "傾向"}, "steps": LONG},
        {"name": "plan", "title": "Plan", "steps": SHORT},
    ],
    status="RUNNING",
    phase=1,
    step="THINK",
    generation=1,
    open_tasks=1,
    title="remote work",
    input={"theme": "remote work"},
    auto_steps=True,
    auto_phases=False,
    max_retries=3,
    retry_delay=timedelta(seconds=1),
    timeout=timedelta(minutes=5),
    error=None,
    created_at=NOON,
    updated_at=NOON,
    completed_at=None,
    has_worker=True,
    created_by="me",
    parent_id=None,
    parent_phase=None,
    gates={},
    models={},
    kept=[],
    stop=None,
    waiting_since=None,
    waited=timedelta(0),
    archived_at=None,
)
USAGE = SessionUsage(
    calls=0, input_tokens=None, output_tokens=None, cost_usd=None, unpriced=0, models=None
)
RETRY = PendingRetry(
    id=7,
    phase=1,
    step="THINK",
    item=0,
    attempt=2,
    error={"kind": "ModelBusy", "message": "429", "retryable": True},
    available_at=NOON + timedelta(seconds=9),
    waits=False,
)


def count(phase: int, step: str, *, total: int = 1, generation: int = 1, **states: int) -> Any:
    """Count tasks of a step; those not named by a state are complete."""
    known = {"running": 0, "failed": 0, "cancelled": 0, "queued": 0, "held": 0} | states
    tolerated = known.pop("tolerated", 0)  # of those that failed
    return StepCount(
        phase=phase,
        generation=generation,
        step=step,
        total=total,
        completed=total - sum(known.values()),
        started_at=NOON,
        completed_at=NOON,
        tolerated=tolerated,
        **known,
    )


def shown(
    *counts: StepCount,
    retry: PendingRetry | None = None,
    usage: SessionUsage = USAGE,
    revision: int | None = None,
    approved: tuple[int, ...] = (),
    approved_by: tuple[str, ...] = (),
    **fields: Any,
) -> dict[str, Any]:
    standing = (
        None
        if revision is None
        else Standing(id=revision, complaint=None, approved_by=list(approved_by))
    )
    return progress(
        replace(SESSION, **fields), counts, retry, usage, standing=standing, approved=approved
    )


def five(seen: dict[str, Any]) -> tuple[Any, ...]:
    """Return the five fields to steer by."""
    return (
        seen["currentPhase"],
        seen["currentStep"],
        seen["completedPhases"],
        seen["canProceed"],
        seen["requiresManualTrigger"],
    )


DONE_1 = [count(1, step) for step in LONG]


def test_a_running_step_needs_nobody():
    seen = shown(count(1, "THINK", running=1))
    assert five(seen) == (1, "THINK", [], False, False)
    assert seen["waitingFor"] is None
    assert seen["error"] is None
    assert [p["status"] for p in seen["phases"]] == ["RUNNING", "PENDING"]


def test_a_new_session_waits_for_process_async():
    seen = shown(count(1, "THINK", held=1))
    assert five(seen) == (1, "THINK", [], False, True)
    assert seen["waitingFor"] == {
        "kind": "process-async",
        "message": "Phase 1 THINK waits to be started (process-async).",
    }
    assert seen["phases"][0]["status"] == "HELD"


def test_at_a_gate_a_person_can_proceed_and_must():
    seen = shown(*DONE_1, status="AWAITING_REVIEW", step="INTEGRATE", open_tasks=0, revision=5)
    assert five(seen) == (1, "INTEGRATE", [1], True, True)
    assert seen["waitingFor"]["kind"] == "review"
    assert seen["revision"] == 5
    assert [p["status"] for p in seen["phases"]] == ["COMPLETED", "PENDING"]


def test_at_a_gate_for_several_it_is_said_who_is_missing():
    phases = [SESSION.flow_phases[0] | {"gate": {"approvals": 3}}, SESSION.flow_phases[1]]
    at_gate = {"status": "AWAITING_REVIEW", "step": "INTEGRATE", "revision": 5}
    assert shown(*DONE_1, **at_gate)["missing"] == 1
    assert shown(*DONE_1, **at_gate, flow_phases=phases)["missing"] == 3
    seen = shown(*DONE_1, **at_gate, flow_phases=phases, approved_by=("ann",))
    assert (seen["approvedBy"], seen["missing"]) == (["ann"], 2)
    assert seen["waitingFor"]["message"].startswith(
        "Phase 1 is done and approved by ann; 2 more must approve"
    )
    fewer = {"gates": {"1": {"approvals": 2}}}  # the session's own word goes over the flow's
    seen = shown(*DONE_1, **at_gate, flow_phases=phases, approved_by=("ann",), **fewer)
    assert seen["missing"] == 1
    assert shown(*DONE_1, flow_phases=phases)["missing"] == 0, "there is no gate"


def test_a_revision_is_shown_only_at_a_gate():
    assert shown(*DONE_1, count(2, "THINK", running=1), phase=2, revision=5)["revision"] is None


def test_between_two_steps_of_a_phase_it_runs_and_is_not_complete():
    seen = shown(count(1, "THINK"), count(1, "EXECUTE", total=4, running=1, queued=1))
    assert five(seen)[2:4] == ([], False)
    phase = seen["phases"][0]
    assert phase["status"] == "RUNNING"
    fields = ("step", "status", "tasks", "completed", "open")
    assert [tuple(step[f] for f in fields) for step in phase["steps"]] == [
        ("THINK", "COMPLETED", 1, 1, 0),
        ("EXECUTE", "RUNNING", 4, 2, 2),
        ("INTEGRATE", "PENDING", 0, 0, 0),
    ]


def test_a_phase_whose_next_step_has_not_begun_still_runs():
    assert shown(count(1, "THINK"), step="EXECUTE")["phases"][0]["status"] == "RUNNING"


def test_a_paused_session_waits_for_resume():
    seen = shown(*DONE_1, count(2, "THINK", held=1), status="PAUSED", phase=2)
    assert five(seen) == (2, "THINK", [1], False, True)
    assert seen["waitingFor"] == {
        "kind": "resume",
        "message": "Paused. Resume goes on where it stopped.",
    }


def test_a_failed_session_says_why_and_waits_for_resume():
    why = {"message": "refused", "phase": 1, "step": "EXECUTE", "attempt": 4, "retryAt": None}
    counts = [count(1, "THINK"), count(1, "EXECUTE", total=3, failed=1, running=1)]
    seen = shown(*counts, status="FAILED", step="EXECUTE", error=why)
    assert five(seen) == (1, "EXECUTE", [], False, True)
    assert seen["waitingFor"]["kind"] == "resume"
    assert seen["error"] == why
    assert seen["phases"][0]["steps"][1]["status"] == "FAILED"
    assert seen["phases"][0]["steps"][1]["failed"] == 1


def test_a_completed_session_waits_for_nothing():
    done = [*DONE_1, count(2, "THINK"), count(2, "INTEGRATE")]
    seen = shown(*done, status="COMPLETED", phase=2, step="INTEGRATE", completed_at=NOON)
    assert five(seen) == (2, "INTEGRATE", [1, 2], False, False)
    assert seen["waitingFor"] is None
    assert seen["completedAt"] == NOON


def test_a_cancelled_session_waits_for_nothing():
    seen = shown(count(1, "THINK", cancelled=1), status="CANCELLED", completed_at=NOON)
    assert five(seen) == (1, "THINK", [], False, False)
    assert seen["waitingFor"] is None
    assert seen["phases"][0]["steps"][0]["status"] == "CANCELLED"
    assert seen["phases"][0]["steps"][0]["open"] == 0


def test_a_failed_attempt_is_shown_with_when_it_is_repeated():
    seen = shown(count(1, "THINK", queued=1), retry=RETRY)
    assert seen["waitingFor"]["kind"] == "retry"
    assert five(seen)[4] is False
    assert seen["error"] == {
        "message": "429",
        "kind": "ModelBusy",
        "phase": 1,
        "step": "THINK",
        "item": 0,
        "attempt": 2,
        "taskId": 7,
        "retryAt": NOON + timedelta(seconds=9),
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("NotNow", "provider"),
        ("ModelBusy", "provider"),  # it asked us to be slower
        ("StillAnswering", "answer"),
        ("ModelElsewhere", "claim"),
        ("ModelNowhere", "model"),
    ],
)
def test_what_only_waits_is_no_error_and_says_what_it_waits_for(error: str, kind: str):
    wait = replace(RETRY, error={"kind": error, "message": "for 9 s"}, waits=True)
    seen = shown(count(1, "THINK", queued=1), retry=wait)
    assert seen["error"] is None
    assert seen["waitingFor"] == {"kind": kind, "message": "It waits: for 9 s"}
    assert five(seen)[4] is False
    assert seen["wait"] == {
        "message": "for 9 s",
        "kind": kind,
        "phase": 1,
        "step": "THINK",
        "item": 0,
        "attempt": 2,
        "taskId": 7,
        "until": NOON + timedelta(seconds=9),
    }


def test_a_wait_is_told_while_other_items_run_and_not_once_the_session_has_failed():
    wait = replace(RETRY, step="EXECUTE", waits=True)
    counts = [count(1, "THINK"), count(1, "EXECUTE", total=2, running=1, queued=1)]
    seen = shown(*counts, step="EXECUTE", retry=wait)
    assert (seen["waitingFor"], seen["wait"]["taskId"]) == (None, 7)
    why = {"message": "refused", "phase": 1, "step": "EXECUTE"}
    seen = shown(*counts, step="EXECUTE", retry=wait, status="FAILED", error=why)
    assert (seen["wait"], seen["error"]) == (None, why)


def test_without_a_worker_that_knows_the_flow_it_says_which_version_is_missing():
    seen = shown(count(1, "THINK", queued=1), has_worker=False)
    assert seen["waitingFor"]["kind"] == "worker"
    assert "'viral'" in seen["waitingFor"]["message"]
    assert "abc" in seen["waitingFor"]["message"]


def test_with_a_worker_it_waits_to_be_claimed():
    assert shown(count(1, "THINK", queued=1))["waitingFor"]["kind"] == "claim"


def test_a_rerun_phase_shows_its_newest_generation():
    seen = shown(count(1, "THINK", generation=3, running=1), generation=3)
    assert [p["generation"] for p in seen["phases"]] == [3, None]


def test_titles_in_other_languages_are_passed_on():
    assert [p["titles"] for p in shown()["phases"]] == [{"ja": "傾向"}, {}]


def test_what_is_not_known_of_cost_is_null_and_never_zero():
    assert shown()["cost"] == {"usd": None, "callsWithoutPrice": 0}
    assert shown()["usage"] == {
        "calls": 0,
        "inputTokens": None,
        "outputTokens": None,
        "models": [],
    }
    paid = SessionUsage(
        calls=3,
        input_tokens=10,
        output_tokens=4,
        cost_usd=Decimal("0.0125"),
        unpriced=1,
        models=["openai:gpt-5"],
    )
    assert shown(usage=paid)["cost"] == {"usd": 0.0125, "callsWithoutPrice": 1}
    assert shown(usage=paid)["usage"]["models"] == ["openai:gpt-5"]


@pytest.mark.parametrize("status", SessionState)
def test_the_five_fields_to_steer_by_are_there_in_every_state(status: SessionState):
    seen = shown(count(1, "THINK", queued=1), status=status)
    five = "currentPhase currentStep completedPhases canProceed requiresManualTrigger"
    assert list(seen)[:5] == five.split()
    assert type(seen["canProceed"]) is type(seen["requiresManualTrigger"]) is bool
    assert seen["canProceed"] == (status is SessionState.AWAITING_REVIEW)
    assert seen["requiresManualTrigger"] == (
        status in {SessionState.AWAITING_REVIEW, SessionState.PAUSED, SessionState.FAILED}
    )

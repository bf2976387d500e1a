"""The course of a session as it is drawn: legs, steps, exchange zones, and where the runner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ekiden.core.model import SessionState
from ekiden.web.texts import Speech

_JUST_STARTED = 0.12  # of a step: a runner who has set off is seen to have done so
_NO_MORE = {"COMPLETED", "CANCELLED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShown:
    """One step of a leg."""

    kind: str
    name: str
    status: str
    tasks: int
    completed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One phase on the course."""

    number: int
    title: str
    status: str  # PENDING, or as progress says
    current: bool
    gate: str  # of the exchange zone after it: none, ahead, waiting, passed
    generation: int
    steps: list[StepShown]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The whole course. Positions are percent of its length."""

    legs: list[Leg]
    runner: float
    mood: str  # how the runner is drawn: running, waiting, stopped, fallen, arrived, out

    def at(self, leg: int) -> float:
        """Return where a leg ends."""
        return round(100 * leg / len(self.legs), 2)


def track(progress: dict[str, Any], t: Speech) -> Track:
    """Draw the course from a session's progress."""
    status = progress["status"]
    current = progress["currentPhase"]
    phases = progress["phases"]
    legs = [
        Leg(
            number=p["phase"],
            title=t.titled(p),
            status=p["status"],
            current=p["phase"] == current and status not in _NO_MORE,
            gate=_gate(p["phase"], len(phases), current, status),
            generation=p["generation"] or 1,
            steps=[_step(s, t) for s in p["steps"]],
        )
        for p in phases
    ]
    waiting = progress["waitingFor"]
    return Track(
        legs=legs,
        runner=_runner(progress, legs),
        mood=_mood(status, waiting["kind"] if waiting else ""),
    )


def _step(step: dict[str, Any], t: Speech) -> StepShown:
    return StepShown(
        kind=step["step"],
        name=t(f"step.{step['step']}"),
        status=step["status"],
        tasks=step["tasks"],
        completed=step["completed"],
    )


def _gate(phase: int, last: int, current: int, status: str) -> str:
    if phase == last:
        return "none"
    if phase < current or status == SessionState.COMPLETED:
        return "passed"
    if phase == current and status == SessionState.AWAITING_REVIEW:
        return "waiting"
    return "ahead"


def _runner(progress: dict[str, Any], legs: list[Leg]) -> float:
    if progress["status"] == SessionState.COMPLETED:
        return 100.0
    leg: Leg = legs[progress["currentPhase"] - 1]
    if progress["status"] == SessionState.AWAITING_REVIEW:
        done = 1.0
    else:
        kinds = [s.kind for s in leg.steps]
        at = kinds.index(progress["currentStep"]) if progress["currentStep"] in kinds else 0
        step = leg.steps[at]
        part = step.completed / step.tasks if step.tasks else 0.0
        if step.status == "RUNNING":
            part = max(part, _JUST_STARTED)
        done = (at + part) / len(leg.steps)
    return round(100 * (leg.number - 1 + done) / len(legs), 2)


def _mood(status: str, waits_for: str) -> str:
    match SessionState(status):
        case SessionState.COMPLETED:
            return "arrived"
        case SessionState.CANCELLED:
            return "out"
        case SessionState.FAILED:
            return "fallen"
        case SessionState.AWAITING_REVIEW:
            return "waiting"
        case SessionState.PAUSED:
            return "stopped"
        case SessionState.RUNNING:
            return "running" if not waits_for else "stopped"

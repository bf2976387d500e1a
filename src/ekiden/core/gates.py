"""What is asked of people at a gate, as data; who may pass it; what going back makes stale.

A policy comes from the flow (``Phase.gate``), and a session may set its own over it. What neither
says is decided by AUTO_PROGRESS_PHASES.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from ekiden.errors import Conflict, FlowError


class GateMode(StrEnum):
    """Who looks."""

    MANUAL = "manual"  # a person, always
    AUTO = "auto"  # nobody
    CHECK = "check"  # a person when the flow's check complains


class GateEnd(StrEnum):
    """What happens to a gate that nobody has passed in time."""

    WAIT = "wait"  # nothing
    APPROVE = "approve"  # the output is approved as it stands
    CANCEL = "cancel"  # the session is cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The policy of the gate after a phase.

    Args:
        mode: who looks; None is ``check`` where there is one, else AUTO_PROGRESS_PHASES decides.
        check: looks at the phase's output and returns what is wrong with it, or None.
        approvals: how many different people must approve.
        approvers: who may; empty for anyone.
        four_eyes: who started the session may not approve.
        remind_after: when those who are told of gates are told again.
        wait_at_most: when ``then`` happens.
        then: what happens when nobody has decided by then.

    Raises:
        FlowError: the parts do not fit together.
    """

    mode: GateMode | None = None
    check: Callable[[Any], str | None] | None = None
    approvals: int = 1
    approvers: tuple[str, ...] = ()
    four_eyes: bool = False
    remind_after: timedelta | None = None
    wait_at_most: timedelta | None = None
    then: GateEnd = GateEnd.WAIT

    def __post_init__(self) -> None:
        if self.mode is GateMode.CHECK and self.check is None:
            raise FlowError("a gate of mode 'check' needs a check")
        if self.approvals < 1:
            raise FlowError("a gate needs at least one approval")
        if self.approvers and self.approvals > len(set(self.approvers)):
            many = len(set(self.approvers))
            raise FlowError(f"a gate asks for {self.approvals} approvals of {many} approvers")
        if self.then is not GateEnd.WAIT and self.wait_at_most is None:
            raise FlowError(f"a gate that ends with {self.then!r} needs wait_at_most")

    def describe(self) -> dict[str, Any]:
        """Return what is registered of it: JSON, only what differs from the default."""
        mode = self.mode or (GateMode.CHECK if self.check is not None else None)
        found: dict[str, Any] = {
            "mode": mode,
            "approvals": self.approvals if self.approvals > 1 else None,
            "approvers": list(self.approvers) or None,
            "fourEyes": self.four_eyes or None,
            "remindAfter": _seconds(self.remind_after),
            "waitAtMost": _seconds(self.wait_at_most),
            "then": self.then if self.then is not GateEnd.WAIT else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time.total_seconds()


def mode_of(policy: Mapping[str, Any], *, auto_phases: bool) -> GateMode:
    """Return the mode of a stored policy; AUTO_PROGRESS_PHASES decides where it is silent."""
    mode = policy.get("mode")
    if mode is None:
        return GateMode.AUTO if auto_phases else GateMode.MANUAL
    return GateMode(mode)


def policy_of(
    phases: Sequence[Mapping[str, Any]], over: Mapping[str, Mapping[str, Any]], phase: int
) -> dict[str, Any]:
    """Return the policy of the gate after a phase.

    Args:
        phases: the flow's, as registered.
        over: what the session has set over them, by phase.
        phase: its number.
    """
    return {**phases[phase - 1].get("gate", {}), **over.get(str(phase), {})}


def looks_at_names(policy: Mapping[str, Any]) -> bool:
    """Whether it matters to a gate who approves."""
    several = int(policy.get("approvals") or 1) > 1
    return several or bool(policy.get("approvers") or policy.get("fourEyes"))


def missing_approvals(policy: Mapping[str, Any], approved_by: Collection[str]) -> int:
    """Return how many more people must approve."""
    return max(0, int(policy.get("approvals") or 1) - len(set(approved_by)))


@dataclass(frozen=True, slots=True)
class Passes:
    """This approval passes the gate."""


@dataclass(frozen=True, slots=True)
class Counts:
    """This approval counts, and others are still needed."""

    missing: int


@dataclass(frozen=True, slots=True)
class Refused:
    """This approval does not count."""

    why: Conflict


def judge_approval(
    policy: Mapping[str, Any], *, actor: str, started_by: str, approved_by: Collection[str]
) -> Passes | Counts | Refused:
    """Decide what one approval means.

    Args:
        policy: the gate's, as stored.
        actor: who approves.
        started_by: who started the session.
        approved_by: who has approved this very revision already.
    """
    approvers: Sequence[str] = policy.get("approvers") or ()
    if approvers and actor not in approvers:
        listed = ", ".join(approvers)
        said = f"{actor} is none of those who may approve here: {listed}."
        return Refused(Conflict(said, kind="not-an-approver", who=actor, approvers=listed))
    if policy.get("fourEyes") and actor == started_by:
        said = f"{actor} started this session, so somebody else must approve (four eyes)."
        return Refused(Conflict(said, kind="four-eyes", who=actor))
    missing = missing_approvals(policy, {*approved_by, actor})
    return Counts(missing) if missing else Passes()


def stale_after(reads: Mapping[int, Collection[int] | None], phase: int) -> set[int]:
    """Return the later phases whose output depends on a phase's, directly or through others.

    Args:
        reads: by phase, which earlier phases' outputs its current run has used; None is unknown,
            as for a result from outside: such a phase may depend on any before it.
        phase: the one whose output will change.
    """
    stale: set[int] = set()
    for number in sorted(n for n in reads if n > phase):
        read = reads[number]
        if read is None or phase in read or stale & set(read):
            stale.add(number)
    return stale


def within_reach(phase: int, *, current: int, completed: bool) -> bool:
    """Return whether a person may edit or rerun a phase.

    One that comes after the current phase may not: what is decided here may change what it is made
    of.

    Args:
        phase: the one to change.
        current: where the session is.
        completed: whether it is done, and all its phases hold.
    """
    return completed or phase <= current


def next_phase(phases: int, phase: int, kept: Collection[int] = ()) -> int | None:
    """Return the phase that runs after this one; None when all that follow are done.

    Args:
        phases: how many the flow has.
        phase: the one that is done.
        kept: later ones whose approved output still holds, after going back.
    """
    return next((n for n in range(phase + 1, phases + 1) if n not in kept), None)

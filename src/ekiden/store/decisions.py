"""The verbs of people, one function each: what the state, the flow and the gate's policy allow.

Each runs inside the transaction of ``Reviews.take``, under the session's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg
import orjson

from ekiden.core.gates import (
    Counts,
    Passes,
    Refused,
    judge_approval,
    next_phase,
    stale_after,
)
from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import Budget, Review, Reviewed, SessionState, StepKind, Verb
from ekiden.core.refusals import beyond, instead, moved_on, no_edit, place
from ekiden.errors import Conflict, InputInvalid, NoGate, StaleRevision
from ekiden.store.queries import sql
from ekiden.store.rows import decoded


async def lock(connection: Any, session_id: str, seen: str | None) -> None:
    """Take the lock of a session for a decision.

    Raises:
        Conflict: the session has moved on since it was ``seen``.
    """
    found = await connection.fetchrow(sql("lock_session"), session_id)
    if found is not None and seen not in {None, place(**found)}:
        raise moved_on(session_id)


class Desk:
    """One decision, with the session locked and all that is to be known of it."""

    def __init__(
        self, connection: Any, session_id: str, gate: asyncpg.Record, review: Review
    ) -> None:
        self.connection = connection
        self.session_id = session_id
        self.gate = gate
        self.review = review
        self.status = SessionState(gate["status"])

    @property
    def phase(self) -> int:
        """The phase that is meant; where none is named, the current one."""
        named, current = self.review.phase, int(self.gate["phase"])
        return current if named is None else named

    async def row(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a statement about the session; return its one row."""
        found: asyncpg.Record | None = await self.connection.fetchrow(
            sql(query), self.session_id, *args
        )
        return found

    async def runs(self) -> list[asyncpg.Record]:
        """Return the newest run of each phase."""
        return list(await self.connection.fetch(sql("look_at_runs"), self.session_id))

    def want(self, event: SessionEvent) -> None:
        """Refuse what the machine does not allow in this state."""
        if session_after(self.status, event) is None:
            raise instead(self.status, self.session_id)

    def want_gate(self) -> None:
        """Refuse what needs a gate where there is none, or another output than was looked at."""
        if self.status is not SessionState.AWAITING_REVIEW:
            raise NoGate(f"Session {self.session_id} is {self.status}: there is no gate to pass.")
        self.want_seen(self.gate["revision"])

    def want_seen(self, revision: int | None) -> None:
        """Refuse a decision over another output than the one that was looked at."""
        if self.review.revision not in {None, revision}:
            raise StaleRevision(
                f"The output of phase {self.gate['phase']} is now revision {revision}, "
                f"you looked at {self.review.revision}. Look again, then decide."
            )

    def done(self, status: str, phase: int, **of: Any) -> Reviewed:
        """Say what became of the session."""
        return Reviewed(status=status, phase=phase, **of)


async def _approve(desk: Desk) -> Reviewed:
    desk.want_gate()
    gate, review = desk.gate, desk.review
    if review.phase not in {None, gate["phase"]}:
        raise Conflict(f"The gate is of phase {gate['phase']}, not of phase {review.phase}.")
    verdict: Passes | Counts | Refused = Passes()
    if not review.timed_out:
        verdict = judge_approval(
            orjson.loads(gate["policy"]),
            actor=review.actor,
            started_by=gate["created_by"],
            approved_by=gate["approved_by"],
        )
    said = (gate["revision"], review.actor, review.comment, review.key)
    match verdict:
        case Refused(why):
            raise why
        case Counts(missing):
            if review.actor in gate["approved_by"]:
                raise Conflict(
                    f"{review.actor} has approved this already; {missing} more must.",
                    kind="approved-already", who=review.actor, missing=missing,
                )  # fmt: skip
            await desk.row("count_approval", *said, missing)
            return desk.done(desk.status, gate["phase"], missing=missing)
        case _:
            following = next_phase(gate["phases"], gate["phase"], gate["kept"])
            row = await desk.row("approve_gate", *said, following)
            assert row is not None
            assert row["changed"] == 1, "the session was locked"
            status = SessionState.COMPLETED if following is None else SessionState.RUNNING
            return desk.done(status, following or gate["phase"], revision=gate["revision"])


async def approve_unasked(connection: Any, session_id: str, actor: str) -> None:
    """Approve what stands at a gate, for nobody decided in time and its flow wants that then.

    To be called under the session's lock.
    """
    gate = await connection.fetchrow(sql("look_at_gate"), session_id)
    said = "Nobody decided in time."
    review = Review(verb=Verb.APPROVE, actor=actor, comment=said, timed_out=True)
    await _approve(Desk(connection, session_id, gate, review))


async def _edit(desk: Desk) -> Reviewed:
    review = desk.review
    runs = await desk.runs()
    phase = desk.phase
    if refused := no_edit_of(desk.session_id, desk.gate, runs, phase):
        raise refused
    run = next(r for r in runs if r["phase"] == phase)
    newest = desk.gate["revision"] if phase == desk.gate["phase"] else run["revision"]
    desk.want_seen(newest)
    schemas = decoded(desk.gate["output_schemas"])
    if phase <= len(schemas):
        from ekiden.schemas import check  # noqa: PLC0415 - 40 ms that only an edit needs

        check(schemas[phase - 1], review.output, what="output")
    at_this_gate = desk.status is SessionState.AWAITING_REVIEW and phase == desk.gate["phase"]
    stale, kept = after_going_back(desk.gate, runs, phase)
    if at_this_gate:
        kept = set(desk.gate["kept"])
    output = _json(review.output, "output")
    row = await desk.row(
        "edit_output", phase, output, review.actor, review.comment, review.key, sorted(kept)
    )
    assert row is not None
    return desk.done(
        SessionState.AWAITING_REVIEW,
        phase,
        revision=row["revision_id"],
        stale=tuple(sorted(stale)),
        kept=tuple(sorted(kept)),
    )


async def _reject(desk: Desk) -> Reviewed:
    desk.want_gate()
    if not (desk.review.comment or "").strip():
        raise InputInvalid(
            "Say what shall be different.", [("comment", "is required to reject an output")]
        )
    return await _begin(desk, desk.gate["phase"], StepKind.THINK, Verb.REJECT)


async def _rerun(desk: Desk) -> Reviewed:
    desk.want(SessionEvent.RERUN)
    return await _begin(desk, desk.phase, desk.review.step, Verb.RERUN)


async def _begin(desk: Desk, phase: int, step: StepKind, verb: Verb) -> Reviewed:
    """Begin a new generation of a phase."""
    review = desk.review
    runs = await desk.runs()
    run = next((r for r in runs if r["phase"] == phase), None)
    if run is None:
        raise Conflict(f"Phase {phase} has not run yet, so it cannot run again.", kind="not-run")
    if refused := beyond(phase, status=desk.status, current=desk.gate["phase"]):
        raise refused
    current = phase == desk.gate["phase"]
    desk.want_seen(desk.gate["revision"] if current else run["revision"])
    if step is not StepKind.THINK and not run["planned"]:
        said = f"Phase {phase} has no finished plan; rerun it from THINK."
        raise Conflict(said, kind="no-plan")
    if step is StepKind.EXECUTE and not run["items"]:
        said = f"Phase {phase} executes nothing; rerun it from THINK or INTEGRATE."
        raise Conflict(said, kind="executes-nothing")
    if step is StepKind.INTEGRATE and not run["executed"]:
        said = f"EXECUTE of phase {phase} is not finished; rerun it from there."
        raise Conflict(said, kind="execute-unfinished")
    stale, kept = after_going_back(desk.gate, runs, phase)
    await desk.row(
        "begin_generation", phase, step, verb, run["think_from"], run["execute_from"],
        desk.gate["revision"] if current else run["revision"],
        review.actor, review.comment, review.model, _json(review.variables, "variables"),
        sorted(kept), review.key,
    )  # fmt: skip
    return desk.done(
        SessionState.RUNNING, phase, stale=tuple(sorted(stale)), kept=tuple(sorted(kept))
    )


async def _accept(desk: Desk) -> Reviewed:
    return await _settle_items(desk, "accept_items")


async def _retry(desk: Desk) -> Reviewed:
    return await _settle_items(desk, "retry_items")


async def _settle_items(desk: Desk, query: str) -> Reviewed:
    if desk.gate["stop"] != "items":
        raise NoGate(f"Session {desk.session_id} has not stopped over items that failed.")
    await desk.row(query, desk.review.actor, desk.review.comment, desk.review.key)
    return desk.done(SessionState.RUNNING, desk.gate["phase"])


async def _budget(desk: Desk) -> Reviewed:
    review = desk.review
    budget = review.budget or Budget()
    phase = review.phase or 0
    if not 0 <= phase <= desk.gate["phases"]:
        raise Conflict(f"The flow has no phase {phase}.")
    row = await desk.row(
        "set_budget", phase, budget.max_cost_usd, budget.max_tokens, review.actor,
        review.comment, review.key, review.keep,
    )  # fmt: skip
    assert row is not None
    if not row["changed"]:
        raise instead(desk.status, desk.session_id)
    stopped = desk.gate["stop"] == "budget"
    return desk.done(SessionState.RUNNING if stopped else desk.status, desk.gate["phase"])


DO: dict[Verb, Callable[[Desk], Coroutine[Any, Any, Reviewed]]] = {
    Verb.APPROVE: _approve,
    Verb.EDIT: _edit,
    Verb.REJECT: _reject,
    Verb.RERUN: _rerun,
    Verb.ACCEPT: _accept,
    Verb.RETRY: _retry,
    Verb.BUDGET: _budget,
}


def no_edit_of(
    session_id: str, gate: asyncpg.Record, runs: Sequence[asyncpg.Record], phase: int
) -> Conflict | None:
    """Return why a phase's output cannot be edited now; None where it can."""
    return no_edit(
        phase,
        session_id=session_id,
        status=SessionState(gate["status"]),
        current=gate["phase"],
        phases=gate["phases"],
        has_output=any(r["phase"] == phase and r["revision"] is not None for r in runs),
    )


def after_going_back(
    gate: asyncpg.Record, runs: Sequence[asyncpg.Record], phase: int
) -> tuple[set[int], set[int]]:
    """Return which later phases run again once this one's output changes, and which still hold."""
    current, kept = gate["phase"], set(gate["kept"])
    ended = gate["status"] == SessionState.COMPLETED

    def holds(run: asyncpg.Record) -> bool:
        number = run["phase"]
        return bool(run["approved"]) and (
            number < current or number in kept or (ended and number == current)
        )

    later = [run for run in runs if run["phase"] > phase]
    stale = stale_after({r["phase"]: r["reads"] if holds(r) else None for r in later}, phase)
    return stale, {r["phase"] for r in later} - stale


def _json(value: Any, what: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InputInvalid(f"The {what} is no JSON: {error}", [(what, str(error))]) from None

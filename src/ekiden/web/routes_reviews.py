"""What a person decides on a session: approve, edit, send back, run again, and the stops.

Every decision is a form; what cannot be done any more is told on a page that keeps what was typed.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from ekiden.api.limits import INT64_MAX, parse_json
from ekiden.api.problems import Refusal, invalid
from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import Budget, Review, SessionState, StepKind, Verb
from ekiden.core.records import Session
from ekiden.errors import Conflict, InputInvalid, NotFound, StaleRevision
from ekiden.store.pages import MOST_OUTPUT, RevisionRow
from ekiden.web.editing import edited, form_of
from ekiden.web.routes_sessions import Form, act, code_of, told_of
from ekiden.web.visit import PageRoute, Visit, Visiting
from ekiden.web.words import told_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_LONGEST_NOTE = 10_000
_LONGEST_MODEL = 200
PhaseNumber = Annotated[int, Query(ge=1, le=32)]


def _review(visit: Visit, form: Form, verb: Verb, **more: Any) -> Review:
    """Return a decision as a form says it."""
    once, seen = form.get("once", ""), form.get("revision", "")
    return Review(
        verb=verb,
        actor=visit.actor,
        comment=form.get("comment", "").strip()[:_LONGEST_NOTE] or None,
        revision=int(seen) if seen.isdecimal() and len(seen) < 19 else None,
        key=f"web:{verb}:{once}" if once.isalnum() and len(once) <= 64 else None,
        model=form.get("model", "").strip()[:_LONGEST_MODEL] or None,
        **more,
    )


@router.post("/sessions/{session_id}/approve")
async def approve(visit: Visiting, session_id: str) -> Response:
    """Approve the output that the form was made for."""
    return await act(visit, session_id, lambda form: _take(visit, session_id, form, Verb.APPROVE))


@router.post("/sessions/{session_id}/reject")
async def reject(visit: Visiting, session_id: str) -> Response:
    """Send the output back with a note; its phase runs again."""
    return await act(visit, session_id, lambda form: _take(visit, session_id, form, Verb.REJECT))


@router.post("/sessions/{session_id}/accept")
async def accept(visit: Visiting, session_id: str) -> Response:
    """Go on without the items that failed."""
    return await act(visit, session_id, lambda form: _take(visit, session_id, form, Verb.ACCEPT))


@router.post("/sessions/{session_id}/retry")
async def retry(visit: Visiting, session_id: str) -> Response:
    """Try only the items that failed again."""
    return await act(visit, session_id, lambda form: _take(visit, session_id, form, Verb.RETRY))


@router.post("/sessions/{session_id}/budget")
async def budget(visit: Visiting, session_id: str) -> Response:
    """Set a new budget, and go on."""

    async def do(form: Form) -> None:
        of = form.get("of_phase", "0")
        phase = int(of) if of.isdecimal() and len(of) < 3 else 0
        await _take(visit, session_id, form, Verb.BUDGET, budget=_budget(form), phase=phase)

    return await act(visit, session_id, do)


async def _take(visit: Visit, session_id: str, form: Form, verb: Verb, **more: Any) -> None:
    await visit.here.sessions.reviews.take(session_id, _review(visit, form, verb, **more))


def _budget(form: Form) -> Budget:
    cost, tokens = form.get("max_cost_usd", "").strip(), form.get("max_tokens", "").strip()
    try:
        limit = Decimal(cost) if cost else None
        count = int(tokens) if tokens else None
    except (InvalidOperation, ValueError):
        limit, count = Decimal(-1), None
    if limit is not None and not (limit.is_finite() and 0 <= limit < 10**9):
        raise InputInvalid("The budget is no amount.", [("max_cost_usd", "form.not-a-number")])
    if count is not None and not 0 <= count <= INT64_MAX:
        raise InputInvalid("The budget is no amount.", [("max_tokens", "form.not-a-number")])
    return Budget(max_cost_usd=limit, max_tokens=count)


# -- edit ----------------------------------------------------------------------------------------


async def _newest(visit: Visit, session_id: str, phase: int) -> RevisionRow:
    rows = [r for r in await visit.pages.revisions(session_id) if r.phase == phase]
    if not rows:
        raise NotFound(f"Phase {phase} of session {session_id} has no output yet.")
    return max(rows, key=lambda r: (r.generation, r.number))


@router.get("/sessions/{session_id}/edit")
async def edit_form(
    visit: Visiting, session_id: str, phase: PhaseNumber, raw: bool = False
) -> Response:
    """Show an output as a form, or as JSON."""
    return await _show_edit(visit, session_id, phase, raw=raw)


async def _show_edit(
    visit: Visit,
    session_id: str,
    phase: int,
    *,
    raw: bool,
    code: int = 200,
    form: Form | None = None,
    problems: list[tuple[str, str]] | None = None,
    told: str = "",
) -> Response:
    session = await visit.here.sessions.get(session_id)
    newest = await _newest(visit, session.id, phase)
    text = await visit.pages.output(session.id, newest.id)
    said = [(path, told_in(visit.t, message)) for path, message in problems or ()]
    group = None
    if not raw and newest.bytes <= MOST_OUTPUT:
        schema = await visit.pages.output_schema(session.id, phase)
        group = form_of(json.loads(text), schema, visit.t, given=form, problems=said)
    raw = group is None
    return await visit.show(
        "edit.html",
        code=code,
        session=session,
        phase=phase,
        title=_title(visit, session, phase),
        # A second try replaces what is there now; that was said before.
        revision=newest.id,
        base=(form or {}).get("base") or newest.id,
        newest=newest,
        group=group,
        raw_text=((form or {}).get("json") or _pretty(text)) if raw else "",
        problems=said,
        told=told,
        typed=form or {},
        once=token_hex(16),
        stale=await _consequence(visit, session, phase),
        now=await visit.pages.now(),
    )


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False, indent=2)


@router.post("/sessions/{session_id}/edit")
async def edit(visit: Visiting, session_id: str, phase: PhaseNumber, raw: bool = False) -> Response:
    """Store what a person made of an output as a new revision."""
    form = await visit.form()
    base = form.get("base", "")
    try:
        if "json" in form:
            output, raw = parse_json(form["json"].encode()), True
        else:
            if not (base.isdecimal() and len(base) < 19):
                raise invalid([("base", "is missing")])
            before = json.loads(await visit.pages.output(session_id, int(base)))
            output, problems = edited(before, form)
        if problems:
            return await _show_edit(
                visit, session_id, phase, raw=raw, code=422, form=form, problems=problems
            )
        await _take(visit, session_id, form, Verb.EDIT, output=output, phase=phase)
    except Refusal as refusal:
        problems = list(refusal.fields) or [("", refusal.detail)]
        return await _show_edit(
            visit, session_id, phase, raw=raw, code=422, form=form, problems=problems
        )
    except InputInvalid as error:
        return await _show_edit(
            visit, session_id, phase, raw=raw, code=422, form=form, problems=list(error.problems)
        )
    except StaleRevision:
        told = visit.t("conflict.edit")
        return await _show_edit(visit, session_id, phase, raw=raw, code=412, form=form, told=told)
    except Conflict as error:
        return await _show_edit(
            visit, session_id, phase, raw=raw, code=409, form=form, told=told_of(visit, error)
        )
    return visit.see_other(f"/sessions/{session_id}")


# -- rerun ---------------------------------------------------------------------------------------


@router.get("/sessions/{session_id}/rerun")
async def rerun_form(
    visit: Visiting, session_id: str, phase: PhaseNumber | None = None
) -> Response:
    """Show from where a session can run again, and what that would make stale."""
    return await _show_rerun(visit, session_id, phase)


async def _show_rerun(
    visit: Visit,
    session_id: str,
    phase: int | None,
    *,
    code: int = 200,
    form: Form | None = None,
    told: str = "",
) -> Response:
    session = await visit.here.sessions.get(session_id)
    begun = sorted({t.phase for t in await visit.pages.tasks(session.id)})
    newest = {r.phase: r.id for r in await visit.pages.revisions(session.id)}
    return await visit.show(
        "rerun.html",
        code=code,
        session=session,
        may=session_after(SessionState(session.status), SessionEvent.RERUN) is not None,
        choices=[
            {
                "phase": number,
                "title": _title(visit, session, number),
                "steps": session.flow_phases[number - 1]["steps"],
                "revision": newest.get(number, ""),
                "stale": await _consequence(visit, session, number),
            }
            for number in begun
        ],
        chosen=phase or session.phase,
        told=told,
        typed=form or {},
        once=token_hex(16),
    )


@router.post("/sessions/{session_id}/rerun")
async def rerun(visit: Visiting, session_id: str) -> Response:
    """Go back to a step of a phase."""
    form = await visit.form()
    number, step = form.get("phase", ""), form.get("step", "")
    phase = int(number) if number.isdecimal() and len(number) < 3 else 0
    if not phase or step not in set(StepKind):
        raise invalid([("phase", "is required")])
    form["revision"] = form.get(f"revision-{phase}", "")
    try:
        await _take(visit, session_id, form, Verb.RERUN, phase=phase, step=StepKind(step))
    except (Conflict, InputInvalid) as error:
        return await _show_rerun(
            visit, session_id, phase, code=code_of(error), form=form, told=told_of(visit, error)
        )
    return visit.see_other(f"/sessions/{session_id}")


def _title(visit: Visit, session: Session, phase: int) -> str:
    phases = session.flow_phases
    return visit.t.titled(phases[phase - 1]) if phase <= len(phases) else str(phase)


async def _consequence(visit: Visit, session: Session, phase: int) -> str:
    """Say which later phases would run again, and which would be kept."""
    stale, kept = await visit.here.sessions.reviews.would_be_stale(session.id, phase)
    t = visit.t
    parts = []
    if stale:
        titles = t("word.comma").join(_title(visit, session, n) for n in stale)
        parts.append(t("rerun.stale", phases=titles))
    if kept:
        titles = t("word.comma").join(_title(visit, session, n) for n in kept)
        parts.append(t("rerun.kept", phases=titles))
    return " ".join(parts) or t("rerun.nothing")

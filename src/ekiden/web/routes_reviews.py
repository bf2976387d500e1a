"""What a person decides on a session: approve, edit, send back, run again, and the stops.

Every decision is a form; what cannot be done any more is told on a page that keeps what was typed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from ekiden.api.limits import parse_json
from ekiden.api.problems import Refusal, invalid
from ekiden.core.gates import looks_at_names, policy_of, within_reach
from ekiden.core.machine import SessionEvent, session_after
from ekiden.core.model import Budget, Review, SessionState, StepKind, Verb
from ekiden.core.records import Session
from ekiden.errors import Conflict, InputInvalid, NotFound, StaleRevision
from ekiden.store.pages import RevisionRow
from ekiden.store.reviews import RESERVED_NAME
from ekiden.web.editing import edited, form_of
from ekiden.web.language import itself
from ekiden.web.options import read_budget, wrong_model
from ekiden.web.routes_sessions import Form, act, code_of, show_session, told_of, wrong_of
from ekiden.web.visit import PageRoute, Visit, Visiting, key_of
from ekiden.web.words import told_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_LONGEST_NOTE = 10_000
_BESIDE_OUTPUT = ("revision", "base", "comment", "name")  # what both forms of an edit have
PhaseNumber = Annotated[int, Query(ge=1, le=32)]


def _review(visit: Visit, form: Form, verb: Verb, **more: Any) -> Review:
    """Return a decision as a form says it.

    Raises:
        InputInvalid: it names a model that nobody can be asked by.
    """
    seen, model = form.get("revision", ""), form.get("model", "").strip()
    if model and (wrong := wrong_model(model, visit.here.settings.providers)):
        raise InputInvalid("The model cannot be asked.", [("model", said) for said in wrong])
    return Review(
        verb=verb,
        actor=visit.actor,
        comment=form.get("comment", "").strip()[:_LONGEST_NOTE] or None,
        revision=int(seen) if seen.isdecimal() and len(seen) < 19 else None,
        seen=form.get("seen"),
        key=key_of(form, verb),
        model=model or None,
        **more,
    )


@router.post("/sessions/{session_id}/approve")
async def approve(visit: Visiting, session_id: str) -> Response:
    """Approve the output that the form was made for."""

    async def do(form: Form) -> None:
        await _want_name(visit, session_id)
        await _take(visit, session_id, form, Verb.APPROVE)

    return await act(visit, session_id, do)


async def _want_name(visit: Visit, session_id: str) -> None:
    """Want a name where it matters who approves: without one, everybody is the same.

    Raises:
        InputInvalid: there is none.
    """
    session = await visit.here.sessions.get(session_id)
    at_gate = session.status == SessionState.AWAITING_REVIEW
    policy = policy_of(session.flow_phases, session.gates, session.phase)
    if at_gate and not visit.name and looks_at_names(policy):
        raise InputInvalid("It matters who approves.", [("actor", "gate.name-wanted")])


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
    problems: list[tuple[str, str]] = []
    budget = read_budget(form, problems)
    if problems:
        raise InputInvalid("The budget does not fit.", problems)
    return budget


# -- edit ----------------------------------------------------------------------------------------


async def _versions(visit: Visit, session_id: str, phase: int) -> list[RevisionRow]:
    """Return the revisions of a phase, newest last."""
    rows = [r for r in await visit.pages.revisions(session_id) if r.phase == phase]
    if not rows:
        raise NotFound(f"Phase {phase} of session {session_id} has no output yet.")
    return sorted(rows, key=lambda r: (r.generation, r.number))


def _base(versions: Sequence[RevisionRow], form: Form) -> RevisionRow:
    """Return the revision that a form was made from."""
    found = next((r for r in versions if str(r.id) == form.get("base")), None)
    if found is None:
        raise invalid([("base", "is no version of this output")])
    return found


@router.get("/sessions/{session_id}/edit")
async def edit_form(
    visit: Visiting, session_id: str, phase: PhaseNumber, raw: bool = False
) -> Response:
    """Show an output as a form, or as JSON; where no edit could be stored, the session and why."""
    try:
        await visit.here.sessions.reviews.check_edit(session_id, phase)
    except Conflict as error:
        return await show_session(visit, session_id, refused=error)
    return await _show_edit(visit, session_id, phase, raw=raw)


async def _show_edit(
    visit: Visit,
    session_id: str,
    phase: int,
    *,
    raw: bool,
    code: int = 200,
    form: Form | None = None,
    problems: Sequence[tuple[str, str]] = (),
    told: str = "",
) -> Response:
    session = await visit.here.sessions.get(session_id)
    versions = await _versions(visit, session.id, phase)
    newest = versions[-1]
    # The fields are those of what the form was made from, so what was typed has its place.
    base = newest if form is None else _base(versions, form)
    text = await visit.pages.output(session.id, base.id)
    # Of the output; but who sends it is none of its fields.
    said = [(p[0], told_in(visit.t, p[1])) for p in problems if p != RESERVED_NAME]
    typed = form or {}
    text = typed.get("draft", text)
    group = None
    wants_fields = not (raw or "json" in typed)
    if wants_fields and not base.too_large:
        schema = await visit.pages.output_schema(session.id, phase)
        group = form_of(json.loads(text), schema, visit.t, given=form, problems=said)
    query = [("phase", str(phase)), ("raw", "" if group else "true")]
    return await visit.show(
        "edit.html",
        code=code,
        itself=itself(f"/sessions/{session.id}/edit", query),
        session=session,
        phase=phase,
        title=_title(visit, session, phase),
        # Only who is told that there is a newer one replaces that with the next try.
        revision=newest.id if form is None or code == 412 else typed.get("revision", ""),
        base=base.id,
        newest=newest,
        group=group,
        fieldless=wants_fields and group is None,
        raw_text="" if group else typed["json"] if "json" in typed else _pretty(text),
        problems=said,
        wrong_name=told_in(visit.t, RESERVED_NAME[1]) if RESERVED_NAME in problems else "",
        told=told,
        typed=typed,
        once=token_hex(16),
        stale=await _consequence(visit, session, phase),
        now=await visit.pages.now(),
    )


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False, indent=2)


async def _typed(visit: Visit, session_id: str, base: RevisionRow, form: Form) -> Any:
    """Return an output as a form says it: as JSON, or by what its fields say of what it was.

    Raises:
        InputInvalid: some of it cannot be read.
        Refusal: 400, a form that no page of ours has made.
    """
    if "json" in form:
        try:
            return parse_json(form["json"].encode())
        except Refusal as refusal:
            said = list(refusal.fields) or [("", visit.t("edit.not-json", said=refusal.detail))]
            raise InputInvalid(refusal.detail, said) from None
    if "draft" in form:  # typed as JSON before it was shown as fields
        before = parse_json(form["draft"].encode())
    else:
        before = json.loads(await visit.pages.output(session_id, base.id))
    output, problems = edited(before, form)
    if problems:
        raise InputInvalid("What was typed does not fit.", problems)
    return output


@router.post("/sessions/{session_id}/edit")
async def edit(visit: Visiting, session_id: str, phase: PhaseNumber, raw: bool = False) -> Response:
    """Store what a person made of an output as a new revision."""
    form = await visit.form()
    base = _base(await _versions(visit, session_id, phase), form)
    show = partial(_show_edit, visit, session_id, phase, raw=raw, form=form)
    try:
        output = await _typed(visit, session_id, base, form)
        await _take(visit, session_id, form, Verb.EDIT, output=output, phase=phase)
    except InputInvalid as error:
        return await show(code=422, problems=error.problems)
    except StaleRevision:
        return await show(code=412, told=visit.t("conflict.edit"))
    except Conflict as error:
        return await show(code=409, told=told_of(visit, error))
    return visit.see_other(f"/sessions/{session_id}")


@router.post("/sessions/{session_id}/edit/form")
async def turn(visit: Visiting, session_id: str, phase: PhaseNumber, raw: bool = False) -> Response:
    """Show what was typed in the other form; nothing is stored."""
    form = await visit.form()
    base = _base(await _versions(visit, session_id, phase), form)
    show = partial(_show_edit, visit, session_id, phase)
    try:
        output = await _typed(visit, session_id, base, form)
    except InputInvalid as error:
        return await show(raw=not raw, form=form, code=422, problems=error.problems)
    carried = {name: form[name] for name in _BESIDE_OUTPUT if name in form}
    text = json.dumps(output, ensure_ascii=False, indent=2 if raw else None)
    return await show(raw=raw, form={**carried, "json" if raw else "draft": text})


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
    refused: Conflict | InputInvalid | None = None,
    form: Form | None = None,
) -> Response:
    session = await visit.here.sessions.get(session_id)
    begun = await visit.pages.phases(session.id)
    completed = session.status == SessionState.COMPLETED
    newest = {r.phase: r.id for r in await visit.pages.revisions(session.id)}
    return await visit.show(
        "rerun.html",
        code=code_of(refused),
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
            if within_reach(number, current=session.phase, completed=completed)
        ],
        chosen=phase or session.phase,
        told=told_of(visit, refused),
        wrong=wrong_of(visit, refused),
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
        return await _show_rerun(visit, session_id, phase, refused=error, form=form)
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

"""A new session, from a form that the flow's input schema makes."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from fastapi import APIRouter, Response

from ekiden.api.given import Creation
from ekiden.api.limits import fit
from ekiden.api.problems import Refusal
from ekiden.core.records import FlowLine
from ekiden.errors import InputInvalid, NotFound
from ekiden.schemas import check, title_of
from ekiden.web.forms import elsewhere, fields_of, read_form
from ekiden.web.spans import dollars, lasting
from ekiden.web.visit import PageRoute, Visit, Visiting
from ekiden.web.words import told_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)


async def _flow(visit: Visit, name: str) -> FlowLine:
    found = next((f for f in await visit.here.sessions.flows() if f.name == name), None)
    if found is None:
        raise NotFound("There is no such flow: no worker has registered one of this name.")
    return found


@router.get("/new")
async def choose(visit: Visiting) -> Response:
    """Show the flows there are; straight to the form when there is one."""
    flows = await visit.here.sessions.flows()
    if len(flows) == 1:
        return visit.see_other(f"/new/{flows[0].name}")
    return await visit.show("choose.html", flows=flows)


@router.get("/new/{flow}")
async def new(visit: Visiting, flow: str, like: str = "") -> Response:
    """Show the form, filled in like another session's input when one is named."""
    found = await _flow(visit, flow)
    value = (await visit.here.sessions.get(like)).input if like else None
    return await _show(visit, found, value=value)


async def _show(
    visit: Visit,
    flow: FlowLine,
    code: int = 200,
    *,
    given: dict[str, str] | None = None,
    value: dict[str, Any] | None = None,
    problems: list[tuple[str, str]] | None = None,
) -> Response:
    said = [(path, told_in(visit.t, message)) for path, message in problems or ()]
    options = visit.here.settings.options
    return await visit.show(
        "new.html",
        code=code,
        flow=flow,
        phases=[visit.t.titled(p) for p in flow.phases],
        fields=fields_of(flow.input_schema, visit.t, given=given, value=value, problems=said),
        other=elsewhere(said, flow.input_schema),
        given=given or {},
        estimate=await _estimate(visit, flow.name),
        once=(given or {}).get("once") or token_hex(16),
        auto_phases=options.auto_phases if given is None else bool(given.get("auto_phases")),
        auto_steps=options.auto_steps if given is None else bool(given.get("auto_steps")),
        max_retries=(given or {}).get("max_retries") or str(options.max_retries),
    )


async def _estimate(visit: Visit, flow: str) -> str:
    """Say what sessions of this flow have cost lately, or nothing while there are none."""
    history = await visit.pages.flow_history(flow)
    if not history.sessions or history.seconds is None:
        return ""
    took = lasting(history.seconds, visit.t)
    if history.least is None:
        return visit.t("new.took", n=history.sessions, time=took)
    cost = dollars(history.least)
    if history.most != history.least:
        cost += f" – {dollars(history.most)}"
    return visit.t("new.cost", n=history.sessions, cost=cost, time=took)


@router.post("/new/{flow}")
async def create(visit: Visiting, flow: str) -> Response:
    """Create the session and start it, or show the form again with what is wrong beside it."""
    found = await _flow(visit, flow)
    form = await visit.form()
    value, problems = read_form(found.input_schema, form)
    creation = None
    try:
        creation = _creation(form, value)
    except Refusal as refusal:
        problems += [(path.removeprefix("options."), said) for path, said in refusal.fields]
    try:
        check(found.input_schema, value)
    except InputInvalid as error:
        unread = {path for path, _ in problems}  # what could not be read is not also missing
        problems += [p for p in error.problems if p[0] not in unread]
    if problems or creation is None:
        return await _show(visit, found, 422, given=form, problems=problems)
    once = form.get("once", "")
    session_id, _new = await visit.here.sessions.create(
        found.name,
        title=creation.title or title_of(value, found.input_schema, found.title),
        input=value,
        options=creation.options.over(visit.here.settings.options)
        if creation.options
        else visit.here.settings.options,
        start=True,
        actor=visit.actor,
        idempotency_key=f"web:{once}" if once.isalnum() and len(once) <= 64 else None,
    )
    return visit.see_other(f"/sessions/{session_id}")


def _creation(form: dict[str, str], value: dict[str, Any]) -> Creation:
    retries = form.get("max_retries", "").strip()
    options: dict[str, Any] = {
        "autoProgressSteps": bool(form.get("auto_steps")),
        "autoProgressPhases": bool(form.get("auto_phases")),
    }
    if retries:
        options["maxRetries"] = int(retries) if retries.isdecimal() else retries
    title = " ".join(form.get("title", "").split())
    return fit(Creation, {"input": value, "title": title or None, "options": options})

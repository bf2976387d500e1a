"""A new session, from a form that the flow's input schema makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

from fastapi import APIRouter, Response

from ekiden.api.given import Creation, OptionsGiven
from ekiden.api.limits import fit
from ekiden.api.problems import Refusal
from ekiden.core.records import FlowLine
from ekiden.errors import InputInvalid, NotFound
from ekiden.schemas import check, title_of
from ekiden.store.lists import FlowHistory
from ekiden.web.forms import elsewhere, example_of, fields_of, read_form
from ekiden.web.options import MODEL, places, read_options
from ekiden.web.spans import dollars, lasting
from ekiden.web.texts import Speech
from ekiden.web.visit import PageRoute, Visit, Visiting, key_of
from ekiden.web.words import told_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Problems = Sequence[tuple[str, str]]  # a field of the input or of the options, and what is wrong


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
async def new(visit: Visiting, flow: str, like: str = "", example: bool = False) -> Response:
    """Show the form: empty, with the schema's example, or like another session's input."""
    found = await _flow(visit, flow)
    value = example_of(found.input_schema) if example else None
    if like:
        value = (await visit.here.sessions.get(like)).input
    return await _show(visit, found, value=value)


async def _show(
    visit: Visit,
    flow: FlowLine,
    code: int = 200,
    *,
    given: Mapping[str, str] | None = None,
    value: dict[str, Any] | None = None,
    problems: Problems = (),
    wrong_options: Problems = (),
) -> Response:
    said = [(path, told_in(visit.t, message)) for path, message in problems]
    wrong: dict[str, list[str]] = {}
    for name, message in wrong_options:
        wrong.setdefault(name, []).append(told_in(visit.t, message))
    default = visit.here.settings.options
    typed = given or {"max_retries": str(default.max_retries)}
    return await visit.show(
        "new.html",
        code=code,
        flow=flow,
        phases=[visit.t.titled(p) for p in flow.phases],
        fields=fields_of(flow.input_schema, visit.t, given=given, value=value, problems=said),
        other=elsewhere(said, flow.input_schema),
        has_example=example_of(flow.input_schema) is not None,
        given=typed,
        wrong=wrong,
        estimate=estimate_of(await visit.here.sessions.lists.flow_history(flow.name), visit.t),
        once=typed.get("once") or token_hex(16),
        auto_phases=default.auto_phases if given is None else bool(given.get("auto_phases")),
        auto_steps=default.auto_steps if given is None else bool(given.get("auto_steps")),
        models=await visit.here.sessions.lists.models(),
        providers=visit.here.settings.providers,
        places=_places(flow, visit.t),
        by_place=any(typed.get(f"{MODEL}{place}") for place in places(flow.phases)),
    )


def _places(flow: FlowLine, t: Speech) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return each phase with its steps: the place of a model, and what people call it."""
    return [
        (
            str(number),
            f"{number}. {t.titled(phase)}",
            [(f"{number}.{kind}", t(f"step.{kind}")) for kind in phase["steps"]],
        )
        for number, phase in enumerate(flow.phases, start=1)
    ]


def estimate_of(history: FlowHistory, t: Speech) -> str:
    """Say what sessions of a flow took lately, of how many that is known, and how far apart."""
    if not history.sessions or history.seconds is None:
        return t("new.no-history")
    n = history.sessions
    took = t(
        "new.took" if n > 1 else "new.took-one",
        n=n,
        time=lasting(history.seconds, t),
        least=lasting(history.quickest, t),
        most=lasting(history.slowest, t),
    )
    if not history.priced:
        return f"{took} {t('new.no-prices')}"
    cost = t(
        "new.cost" if history.priced > 1 else "new.cost-one",
        n=history.priced,
        cost=dollars(history.cost),
        least=dollars(history.least),
        most=dollars(history.most),
    )
    return f"{cost} {took}"


@router.post("/new/{flow}")
async def create(visit: Visiting, flow: str) -> Response:
    """Create the session and start it, or show the form again with what is wrong beside it."""
    found = await _flow(visit, flow)
    form = await visit.form()
    value, problems = read_form(found.input_schema, form)
    read = read_options(form, found.phases, visit.here.settings.providers)
    creation = None
    try:
        title = " ".join(form.get("title", "").split())
        creation = fit(Creation, {"input": value, "title": title or None, "options": read.options})
    except Refusal as refusal:
        beside = {name for name, _ in read.problems}
        read.problems += [
            (path, said) for path, said in refusal.fields if path == "title" or not beside
        ]
    try:
        check(found.input_schema, value)
    except InputInvalid as error:
        unread = {path for path, _ in problems}  # what could not be read is not also missing
        problems += [p for p in error.problems if p[0] not in unread]
    if problems or read.problems or creation is None:
        return await _show(
            visit, found, 422, given=form, problems=problems, wrong_options=read.problems
        )
    session_id, _new = await visit.here.sessions.create(
        found.name,
        title=creation.title or title_of(value, found.input_schema, found.title),
        input=value,
        options=(creation.options or OptionsGiven()).over(visit.here.settings.options),
        start=True,
        actor=visit.actor,
        idempotency_key=key_of(form, "new"),
    )
    return visit.see_other(f"/sessions/{session_id}")

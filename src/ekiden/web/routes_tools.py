"""What a person has done beside the work: replay of a session, and a check of the installation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from ekiden.api.tools import Tools
from ekiden.core.records import Session
from ekiden.errors import Conflict, EkidenError, NotFound
from ekiden.web.visit import PageRoute, Visit, Visiting

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_MOST_STEPS = 200
_MOST_LINES = 60  # of what is different in one step


@router.get("/sessions/{session_id}/replay")
async def replay_offered(visit: Visiting, session_id: str) -> Response:
    """Say what a replay is, before it is done."""
    return await _show_replay(visit, await visit.here.sessions.get(session_id))


@router.post("/sessions/{session_id}/replay")
async def replay(visit: Visiting, session_id: str) -> Response:
    """Run a session again on its recording, and say what would be different. It changes nothing."""
    await visit.form()
    found = await visit.here.sessions.get(session_id)
    try:
        told = await _tools(visit).replay(found.id)
    except (Conflict, EkidenError) as error:
        return await _show_replay(visit, found, told=_why(visit, error), code=409)
    return await _show_replay(visit, found, replayed=told)


async def _show_replay(
    visit: Visit,
    session: Session,
    *,
    replayed: dict[str, Any] | None = None,
    told: str = "",
    code: int = 200,
) -> Response:
    steps = replayed["steps"] if replayed else []
    titles = [visit.t.titled(phase) for phase in session.flow_phases]
    return await visit.show(
        "replay.html",
        code=code,
        session=session,
        offered=visit.here.tools is not None,
        replayed=replayed,
        changed=sum(_differs(step["verdicts"]) for step in steps),
        steps=[
            {
                **step,
                "title": titles[step["phase"] - 1] if step["phase"] <= len(titles) else "",
                "said": [
                    visit.t.maybe(f"verdict.{v.replace(' ', '-')}", v)
                    for v in dict.fromkeys(step["verdicts"])
                ],
                "differs": _differs(step["verdicts"]),
                "details": "\n".join(step["details"][:_MOST_LINES]),
                "more": max(0, len(step["details"]) - _MOST_LINES),
            }
            for step in steps[:_MOST_STEPS]
        ],
        left_out=max(0, len(steps) - _MOST_STEPS),
        told=told,
    )


def _differs(verdicts: Sequence[str]) -> bool:
    return any(verdict not in {"same", "was not replayed"} for verdict in verdicts)


@router.get("/settings")
async def settings(visit: Visiting) -> Response:
    """Show the flows, the workers, every setting with its origin, and the version."""
    return await _show_settings(visit)


@router.post("/settings")
async def check(visit: Visiting) -> Response:
    """Look at this installation; when it is asked for, make a tiny call to each provider."""
    form = await visit.form()
    try:
        found = await _tools(visit).check(providers=form.get("providers") == "1")
    except (Conflict, EkidenError) as error:
        return await _show_settings(visit, told=_why(visit, error), code=409)
    return await _show_settings(visit, found=found)


async def _show_settings(
    visit: Visit, *, found: dict[str, Any] | None = None, told: str = "", code: int = 200
) -> Response:
    tools = visit.here.tools
    return await visit.show(
        "settings.html",
        code=code,
        now=await visit.pages.now(),
        flows=await visit.here.sessions.flows(),
        workers=await visit.here.sessions.workers(),
        options=visit.here.settings.options,
        address=visit.here.sessions.address,
        listening=visit.here.watchers.listening,
        configuration=tools.configuration if tools else [],
        checkable=tools is not None,
        found=found,
        told=told,
    )


def _tools(visit: Visit) -> Tools:
    if visit.here.tools is None:
        raise NotFound("This server was started without replay and checks.")
    return visit.here.tools


def _why(visit: Visit, error: EkidenError) -> str:
    return visit.t("tools.busy") if isinstance(error, Conflict) else error.message

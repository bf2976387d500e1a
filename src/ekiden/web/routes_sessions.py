"""Sessions: the list, the inbox, one session live, and what a person decides on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from ekiden.api.limits import INT64_MAX
from ekiden.api.sse import follow, stream_of_all
from ekiden.core.attempt_diff import compare
from ekiden.core.model import SessionState
from ekiden.errors import Conflict, InputInvalid, NotFound, StaleRevision
from ekiden.store.lists import MOST_WAITING, SessionRow
from ekiden.web.language import itself
from ekiden.web.live import PAUSE, PageReader
from ekiden.web.rendering import HEADERS, render
from ekiden.web.session_view import SessionView, read
from ekiden.web.spans import dollars
from ekiden.web.visit import PageRoute, Visit, Visiting
from ekiden.web.words import told_in

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PAGE = 40
_MOST_LINES = 200  # of the differences between two calls
_LONGEST_SEARCH = 200
_ENDED = {SessionState.COMPLETED, SessionState.CANCELLED}
_STREAM = {"X-Accel-Buffering": "no"}  # a proxy that buffers would hold events back
RowId = Annotated[int, Path(ge=1, le=INT64_MAX)]
Form = dict[str, str]
Count = Annotated[int, Query(ge=0, le=10_000)]
Cursor = Annotated[str | None, Query(max_length=36)]


# -- lists ---------------------------------------------------------------------------------------


@router.get("/")
async def sessions(
    *,
    visit: Visiting,
    q: Annotated[str, Query(max_length=_LONGEST_SEARCH)] = "",
    status: str = "",
    flow: str = "",
    archived: Annotated[str, Query(max_length=1)] = "",
    cursor: Cursor = None,
    done: Count = 0,
    refused: Count = 0,
) -> Response:
    """Show the sessions that are not archived, or those that are; newest first."""
    words = " ".join(q.split()).replace("\0", "")
    known = status if status in set(SessionState) else ""
    found = await visit.here.sessions.lists.sessions(
        flow=flow.replace("\0", "") or None,
        statuses=[known] if known else [],
        words=words,
        after=cursor or None,
        archived=archived == "1",
        limit=_PAGE + 1,
    )
    page = found[:_PAGE]
    values: dict[str, Any] = {
        "rows": [_row(visit, s) for s in page],
        "next_cursor": page[-1].id if len(found) > _PAGE else None,
        "asked": {
            "q": words,
            "status": known,
            "flow": flow,
            "archived": "1" if archived == "1" else "",
        },
        "cursor": cursor or "",
        "token": visit.token,
    }
    if visit.wants_part:
        return visit.answer(render("_sessions.html", visit.t, **values))
    return await visit.show(
        "sessions.html",
        told=visit.t("bulk.told", n=done, m=refused) if done or refused else "",
        statuses=list(SessionState), flows=await visit.here.sessions.flows(),
        **values,
    )  # fmt: skip


@router.post("/bulk")
async def bulk(visit: Visiting) -> Response:
    """Do one thing to the selected sessions; those that do not allow it are counted."""
    form = await visit.form()
    selected = [name.removeprefix("s-") for name in form if name.startswith("s-")][:_PAGE]
    verb = form.get("verb", "")
    if verb in {"archive", "unarchive"}:
        put = await visit.here.sessions.archive.put(
            selected, actor=visit.actor, back=verb == "unarchive"
        )
        refused = sum(one.refused is not None for one in put)
        done = len(put) - refused
    else:
        done, refused = await _each(visit, verb, selected)
    back = {k: form[k] for k in ("q", "status", "flow", "archived", "cursor") if form.get(k)}
    return visit.see_other("/?" + urlencode({**back, "done": done, "refused": refused}))


async def _each(visit: Visit, verb: str, selected: list[str]) -> tuple[int, int]:
    """Do something to sessions one after the other; return how many took and refused it."""
    act_of = {
        "resume": visit.here.sessions.resume,
        "pause": visit.here.sessions.pause,
        "cancel": visit.here.sessions.cancel,
    }.get(verb)
    done = refused = 0
    if act_of is None:
        return done, refused
    for session_id in selected:
        try:
            await act_of(session_id, actor=visit.actor)
            done += 1
        except (Conflict, NotFound):
            refused += 1
    return done, refused


@router.get("/inbox")
async def inbox(visit: Visiting) -> Response:
    """Show what waits for a person, longest first."""
    rows = [_row(visit, s) for s in await visit.here.sessions.lists.waiting()]
    if visit.wants_part:
        return visit.answer(render("_inbox.html", visit.t, rows=rows, most=MOST_WAITING))
    return await visit.show("inbox.html", rows=rows, most=MOST_WAITING)


def _row(visit: Visit, s: SessionRow) -> dict[str, Any]:
    """Return a line of a list: the session, its place on the course, who must act."""
    phases = s.flow_phases
    kind = _waits(s)
    return {
        "session": s,
        "phase": visit.t.titled(phases[s.phase - 1]) if s.phase <= len(phases) else str(s.phase),
        "phases": len(phases),
        "step": visit.t(f"step.{s.step}"),
        "waits": kind,
        "cost": dollars(s.cost_usd) if s.cost_usd is not None else "",
        "done": len(phases) if s.status == SessionState.COMPLETED else s.phase - 1,
    }


def _waits(s: SessionRow) -> str:
    """Return who must act: a person who reviews, starts or resumes; else nobody."""
    match SessionState(s.status):
        case SessionState.AWAITING_REVIEW:
            return "review"
        case SessionState.PAUSED if s.stop in {"items", "budget"}:
            return s.stop
        case SessionState.FAILED | SessionState.PAUSED:
            return "resume"
        case SessionState.RUNNING if s.held:
            return "start"
        case _:
            return ""


@router.get("/events")
async def all_events(visit: Visiting) -> Response:
    """Say that some session changed, at most once a second."""
    visit.here.watchers.check_room()
    body: AsyncIterator[bytes] = stream_of_all(visit.here.watchers, login=visit.login)
    return StreamingResponse(body, media_type="text/event-stream", headers=_STREAM)


# -- one session ---------------------------------------------------------------------------------


@router.get("/sessions/{session_id}")
async def session(visit: Visiting, session_id: str) -> Response:
    """Show a session."""
    return await show_session(visit, session_id)


async def show_session(
    visit: Visit,
    session_id: str,
    *,
    refused: Conflict | InputInvalid | None = None,
    typed: Form | None = None,
) -> Response:
    """Show a session; after a decision that was refused, with why and with what was typed."""
    # Read for this request alone: it shows what this person has just decided.
    view = SessionView(await read(visit.here.sessions, session_id), visit.t)
    return await visit.show(
        "session.html",
        code=code_of(refused),
        itself=itself(f"/sessions/{view.id}", ()),
        view=view,
        now=view.now,
        told=told_of(visit, refused),
        wrong=wrong_of(visit, refused),
        typed=typed or {},
        once=token_hex(16),
        others=visit.here.watchers.watching(view.id),
    )


@router.get("/sessions/{session_id}/events")
async def events(
    visit: Visiting,
    session_id: str,
    after: Annotated[int, Query(ge=0, le=INT64_MAX)] = 0,
    last_event_id: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=INT64_MAX)] = None,
) -> Response:
    """Keep a session's page up to date from the event on that it is as new as."""
    here = visit.here
    found = await here.sessions.get(session_id)
    start = after if last_event_id is None else last_event_id
    if found.status in _ENDED and await visit.pages.last_event(found.id) <= start:
        return Response(status_code=204)
    here.watchers.check_room()
    reader = PageReader(visit, found.id, start)
    body: AsyncIterator[bytes] = follow(
        reader, here.watchers, found.id, login=visit.login, pause=PAUSE
    )
    return StreamingResponse(body, media_type="text/event-stream", headers=_STREAM)


@router.get("/sessions/{session_id}/revisions/{revision}.json")
async def revision(visit: Visiting, session_id: str, revision: RowId) -> Response:
    """Return an output as it is stored."""
    output = await visit.pages.output(session_id, revision)
    return Response(output.encode(), media_type="application/json", headers=HEADERS)


@router.get("/sessions/{session_id}/tasks/{task_id}")
async def task(visit: Visiting, session_id: str, task_id: RowId) -> Response:
    """Show all there is of one task."""
    found = await visit.here.sessions.get(session_id)
    whole = await visit.pages.task(found.id, task_id)
    said = await visit.here.sessions.partials.texts(found.id, task_id)
    attempts = await visit.here.sessions.attempts(found.id, task_id)
    return await visit.show(
        "task.html",
        session=found,
        task=whole,
        phase=visit.t.titled(found.flow_phases[whole.phase - 1]),
        attempts=attempts,
        differences=await _differences(visit, found.id, task_id, [a.number for a in attempts]),
        calls=await visit.pages.task_calls(found.id, task_id),
        insides=await visit.here.sessions.inside.attempts(found.id, task_id),
        said={(p.attempt, p.call): p.text for p in said},
        now=await visit.pages.now(),
    )


async def _differences(
    visit: Visit, session_id: str, task_id: int, numbers: list[int]
) -> list[tuple[int, str, list[str]]]:
    """Return what the last two attempts asked and were answered differently, call by call."""
    if len(numbers) < 2:
        return []
    early, late = sorted(numbers)[-2:]
    asked = await visit.here.sessions.inside.asked(session_id, task_id, (early, late))
    found = await asyncio.to_thread(compare, asked[early], asked[late])
    return [
        (d.number, what, lines[:_MOST_LINES])
        for d in found
        for what, lines in (("request", d.request), ("answer", d.answer))
        if lines
    ]


# -- what a person does --------------------------------------------------------------------------


async def act(visit: Visit, session_id: str, do: Callable[[Form], Awaitable[object]]) -> Response:
    """Do what a form asks for, and go back to the session.

    What cannot be done any more is told on the page, which keeps what the person had typed.
    """
    form = await visit.form()
    try:
        await do(form)
    except (Conflict, InputInvalid) as error:
        return await show_session(visit, session_id, refused=error, typed=form)
    return visit.see_other(f"/sessions/{session_id}")


def code_of(refused: Conflict | InputInvalid | None) -> int:
    """Return the status of the page that tells of a decision."""
    match refused:
        case None:
            return 200
        case StaleRevision():
            return 412
        case InputInvalid():
            return 422
        case _:
            return 409


def told_of(visit: Visit, refused: Conflict | InputInvalid | None) -> str:
    """Say why a decision was refused, in the reader's language."""
    match refused:
        case None:
            return ""
        case InputInvalid():
            said = (told_in(visit.t, message) for _, message in refused.problems)
            return " ".join((visit.t("form.problems"), *said))
        case _:
            return visit.t.maybe(f"conflict.{refused.kind}", refused.message, **refused.named)


def wrong_of(visit: Visit, refused: Conflict | InputInvalid | None) -> dict[str, str]:
    """Return what is wrong with each field of the form."""
    problems = refused.problems if isinstance(refused, InputInvalid) else ()
    return {name: told_in(visit.t, message) for name, message in problems}


@router.post("/sessions/{session_id}/start")
async def start(visit: Visiting, session_id: str) -> Response:
    """Let the held tasks go that the form was made for."""
    start = visit.here.sessions.start
    return await act(visit, session_id, lambda form: start(session_id, seen=form.get("seen")))


@router.post("/sessions/{session_id}/pause")
async def pause(visit: Visiting, session_id: str) -> Response:
    """Let what runs end, and start nothing new."""
    return await act(
        visit, session_id, lambda _f: visit.here.sessions.pause(session_id, actor=visit.actor)
    )


@router.post("/sessions/{session_id}/resume")
async def resume(visit: Visiting, session_id: str) -> Response:
    """Go on."""
    return await act(
        visit, session_id, lambda _f: visit.here.sessions.resume(session_id, actor=visit.actor)
    )


@router.post("/sessions/{session_id}/archive")
async def archive(visit: Visiting, session_id: str) -> Response:
    """Put it away."""
    away = visit.here.sessions.archive
    return await act(visit, session_id, lambda _f: away.put_one(session_id, actor=visit.actor))


@router.post("/sessions/{session_id}/unarchive")
async def unarchive(visit: Visiting, session_id: str) -> Response:
    """Bring it back."""
    away = visit.here.sessions.archive
    return await act(
        visit, session_id, lambda _f: away.put_one(session_id, actor=visit.actor, back=True)
    )


@router.post("/sessions/{session_id}/cancel")
async def cancel(visit: Visiting, session_id: str) -> Response:
    """End it for good."""
    return await act(
        visit, session_id, lambda _f: visit.here.sessions.cancel(session_id, actor=visit.actor)
    )

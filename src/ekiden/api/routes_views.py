"""Sessions as they are looked at. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from ekiden.api.limits import INT64_MAX
from ekiden.api.openapi import EVENT_STREAM, refusals
from ekiden.api.services import (
    Here,
    KnownFlow,
    KnownSession,
    TaskId,
    etag,
    standing,
)
from ekiden.api.shown_engine import DraftList
from ekiden.api.shown_sessions import SessionList, SessionShown
from ekiden.api.shown_tasks import (
    AttemptList,
    AttemptShown,
    CallShown,
    PartialText,
    RanOn,
    TaskList,
    TaskShown,
)
from ekiden.api.sse import stream
from ekiden.core.model import SessionState

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["sessions"])

_ENDED = {SessionState.COMPLETED, SessionState.CANCELLED}


@router.get("", summary="The sessions of a flow", responses=refusals(404))
async def sessions(
    *,
    flow: KnownFlow,
    here: Here,
    status: SessionState | None = None,
    cursor: Annotated[UUID | None, Query(description="nextCursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    archived: Annotated[bool, Query(description="those that are archived, and no others")] = False,
) -> SessionList:
    """Return sessions, newest first; without those that are archived."""
    found = await here.sessions.find(
        flow=flow.name, status=status, after=str(cursor) if cursor else None, archived=archived,
        limit=limit + 1,
    )  # fmt: skip
    return SessionList.of(found, limit)


@router.get("/{sessionId}", summary="One session with its outputs", responses=refusals(404))
async def session(session: KnownSession, here: Here, response: Response) -> SessionShown:
    """Return a session with its budgets and every revision of its phases' outputs.

    At a gate the ETag names the output that waits there.
    """
    revisions = await here.sessions.revisions(session.id)
    response.headers.update(etag(standing(session, revisions)))
    return SessionShown.of(session, revisions, await here.sessions.budgets.of(session.id))


@router.get("/{sessionId}/tasks", summary="Its tasks", responses=refusals(404))
async def tasks(
    session: KnownSession,
    here: Here,
    cursor: Annotated[
        int | None, Query(ge=1, le=INT64_MAX, description="nextCursor of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> TaskList:
    """Return the tasks of a session, in running order, each with what it was given and made."""
    found = await here.sessions.tasks(session.id, after=cursor, limit=limit + 1)
    if cursor is not None and not found:
        await here.sessions.inside.task(session.id, cursor)  # 404 where nothing could follow
    page = found[:limit]
    return TaskList(
        tasks=[TaskShown.model_validate(t) for t in page],
        next_cursor=page[-1].id if len(found) > limit else None,
    )


@router.get(
    "/{sessionId}/tasks/{taskId}/attempts",
    summary="The attempts and calls of a task",
    responses=refusals(404),
)
async def attempts(session: KnownSession, task_id: TaskId, here: Here) -> AttemptList:
    """Return a task with each try of it and each call it made, without the calls' bytes.

    An attempt shows the text of its streamed calls as far as it was saved: while it runs, and after
    it failed or its worker died. One that failed also shows what it logged.
    """
    task = await here.sessions.inside.task(session.id, task_id)
    tried = await here.sessions.attempts(session.id, task_id)
    insides = await here.sessions.inside.attempts(session.id, task_id)
    calls = await here.sessions.calls(session.id, task_id)
    shown = [AttemptShown.model_validate(a) for a in tried]
    said = await here.sessions.partials.texts(session.id, task_id)
    for attempt in shown:
        attempt.partials = [
            PartialText.model_validate(p) for p in said if p.attempt == attempt.number
        ]
        if (inside := insides.get(attempt.number)) is not None:
            attempt.worker = RanOn.model_validate(inside)
            attempt.logs = inside.logs
    return AttemptList(
        task_id=task_id,
        task=TaskShown.model_validate(task),
        attempts=shown,
        calls=[CallShown.model_validate(c) for c in calls],
    )


@router.get("/{sessionId}/drafts", summary="Its drafts", responses=refusals(404))
async def drafts(session: KnownSession, here: Here) -> DraftList:
    """Return what a completed session made."""
    return DraftList.of(await here.sessions.drafts(session.id))


@router.get(
    "/{sessionId}/events",
    summary="Its history, as it happens",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "server-sent events; the data of each is a JSON object",
            "content": EVENT_STREAM,
        },
        204: {"description": "The session has ended and there is nothing more: do not ask again"},
        **refusals(404, 422),
    },
)
async def events(
    session: KnownSession,
    here: Here,
    after: Annotated[int, Query(ge=0, le=INT64_MAX, description="an event id")] = 0,
    last_event_id: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=INT64_MAX, description="over ``after``")
    ] = None,
) -> Response:
    """Follow a session: what has happened, then each event as it happens.

    ``event:`` is the type, ``id:`` the event's id, ``data:`` the event as JSON. The stream ends
    when the session does. A browser then connects again by itself and is answered 204, which is
    how it is told to stop.

    Between them come events ``partial``: what running calls say, piece by piece. They have no
    ``id:``. A new connection gets them from the first piece of each attempt that runs, so a reader
    leaves out those it has, by ``taskId``, ``attempt``, ``call`` and ``seq``.
    """
    start = after if last_event_id is None else last_event_id
    if session.status in _ENDED and not await here.sessions.events(
        session.id, after=start, limit=1
    ):
        return Response(status_code=204)
    here.watchers.check_room()
    body: AsyncIterator[bytes] = stream(here.sessions, here.watchers, session.id, start)
    # A proxy that buffers would hold events back.
    return StreamingResponse(
        body, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )

"""The inside of a session: where its time went, what was asked and answered. Changes nothing."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from ekiden.api.limits import INT64_MAX
from ekiden.api.openapi import refusals
from ekiden.api.services import CallId, Here, KnownSession, TaskId
from ekiden.api.shown_inside import CallInsideShown, DifferenceList, TimingShown
from ekiden.core import recording
from ekiden.core.attempt_diff import compare
from ekiden.core.timing import timing as timing_of
from ekiden.errors import NotFound

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["inside"])

_BYTES = "application/octet-stream"
_JSON = "application/json"


@router.get("/{sessionId}/timing", summary="Where its time went", responses=refusals(404))
async def timing(session: KnownSession, here: Here) -> TimingShown:
    """Return the critical path of a session, and what each step had of it, also in words.

    Human time (gates, pauses) is apart from waits, and both from machine time.
    """
    return TimingShown.of(session.id, timing_of(await here.sessions.inside.lived(session)))


@router.get("/{sessionId}/calls/{callId}", summary="One call", responses=refusals(404))
async def call(session: KnownSession, call_id: CallId, here: Here) -> CallInsideShown:
    """Return what a call asked, and the beginning of what came back, as text."""
    return CallInsideShown.of(await here.sessions.inside.call(session.id, call_id))


@router.get(
    "/{sessionId}/calls/{callId}/answer",
    summary="Its answer, byte for byte",
    response_class=Response,
    responses={
        200: {
            "description": "the bytes as the provider sent them",
            "content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}},
        },
        **refusals(404),
    },
)
async def answer(session: KnownSession, call_id: CallId, here: Here) -> Response:
    """Return the answer of a call as it came, to be saved: what a model sends is never a page."""
    return Response(
        await here.sessions.inside.answer(session.id, call_id),
        media_type=_BYTES,
        headers={"Content-Disposition": f'attachment; filename="call-{call_id}.bin"'},
    )


@router.get(
    "/{sessionId}/export",
    summary="All of it as one file",
    response_class=Response,
    responses={
        200: {
            "description": "a recording, for `ekiden sessions replay` and `import`",
            "content": {_JSON: {"schema": {"type": "object"}}},
        },
        **refusals(404),
    },
)
async def export(session: KnownSession, here: Here) -> Response:
    """Return everything that a session is made of, as of one moment, every call byte for byte."""
    rows = await here.sessions.recordings.take(session.id)
    return Response(
        await asyncio.to_thread(recording.write, rows),  # it may be many megabytes
        media_type=_JSON,
        headers={"Content-Disposition": f'attachment; filename="{session.id}.json"'},
    )


@router.get(
    "/{sessionId}/tasks/{taskId}/difference",
    summary="What differs between two attempts",
    responses=refusals(404),
)
async def difference(
    session: KnownSession,
    task_id: TaskId,
    here: Here,
    before: Annotated[
        int | None, Query(ge=1, le=INT64_MAX, description="an attempt's number; the last but one")
    ] = None,
    after: Annotated[
        int | None, Query(ge=1, le=INT64_MAX, description="an attempt's number; the last")
    ] = None,
) -> DifferenceList:
    """Compare what two attempts of a task asked and were answered, call by call."""
    await here.sessions.inside.task(session.id, task_id)
    tried = {a.number: a for a in await here.sessions.attempts(session.id, task_id)}
    numbers = sorted(tried)
    late = after if after is not None else (numbers[-1] if numbers else 1)
    early = before if before is not None else max((n for n in numbers if n < late), default=late)
    for number in (early, late):
        if number not in tried:
            raise NotFound(f"Task {task_id} has no attempt {number}.")
    asked = await here.sessions.inside.asked(session.id, task_id, (early, late))
    found = await asyncio.to_thread(compare, asked[early], asked[late])
    pair = (tried[early], tried[late])
    return DifferenceList(
        task_id=task_id,
        before=early,
        after=late,
        outcomes=[a.outcome for a in pair],
        errors=[(a.error or {}).get("message") for a in pair],
        calls=[DifferenceList.line(d) for d in found],
    )

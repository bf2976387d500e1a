"""Finished sessions, put away and brought back: one, or many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from ekiden.api.given import Act, Archiving
from ekiden.api.limits import fit, json_of
from ekiden.api.openapi import body, refusals
from ekiden.api.routes_sessions import progress_of
from ekiden.api.services import Here, KnownFlow, KnownSession, Services
from ekiden.api.shown_progress import Progress
from ekiden.api.shown_sessions import ArchivedList, ArchivedShown

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["sessions"])

Body = Annotated[Any, Depends(json_of)]


@router.post(
    "/archive",
    summary="Archive several",
    responses=refusals(404),
    openapi_extra=body(Archiving, required=True),
)
async def archive_many(flow: KnownFlow, given: Body, here: Here) -> ArchivedList:
    """Put finished sessions away; says of each what became of it. Safe to repeat."""
    return await _many(here, flow.name, given, back=False)


@router.post(
    "/unarchive",
    summary="Bring several back",
    responses=refusals(404),
    openapi_extra=body(Archiving, required=True),
)
async def unarchive_many(flow: KnownFlow, given: Body, here: Here) -> ArchivedList:
    """Bring archived sessions back; says of each what became of it. Safe to repeat."""
    return await _many(here, flow.name, given, back=True)


@router.post(
    "/{sessionId}/archive",
    summary="Archive",
    responses=refusals(404, 409),
    openapi_extra=body(Act),
)
async def archive(session: KnownSession, given: Body, here: Here, response: Response) -> Progress:
    """Put a finished session away: lists and counts leave it out until they are asked for it.

    It stays what it is. Resume, edit and rerun bring it back by themselves.
    """
    await here.sessions.archive.put_one(session.id, actor=_actor(given))
    return await progress_of(here, session.id, response)


@router.post(
    "/{sessionId}/unarchive",
    summary="Bring back",
    responses=refusals(404),
    openapi_extra=body(Act),
)
async def unarchive(session: KnownSession, given: Body, here: Here, response: Response) -> Progress:
    """Bring an archived session back to the lists."""
    await here.sessions.archive.put_one(session.id, actor=_actor(given), back=True)
    return await progress_of(here, session.id, response)


async def _many(here: Services, flow: str, given: Any, *, back: bool) -> ArchivedList:
    asked = fit(Archiving, {} if given is None else given)
    done = await here.sessions.archive.put(
        asked.session_ids, actor=asked.actor, back=back, flow=flow
    )
    return ArchivedList(
        sessions=[
            ArchivedShown(
                session_id=put.id,
                archived=put.archived,
                refused=None if put.refused is None else put.refused.message,
            )
            for put in done
        ]
    )


def _actor(given: Any) -> str:
    return fit(Act, {} if given is None else given).actor

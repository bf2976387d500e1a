"""The inside of a session: where its time went, what was asked and answered. Changes nothing."""

from __future__ import annotations

from fastapi import APIRouter

from ekiden.api.openapi import refusals
from ekiden.api.services import Here, KnownSession
from ekiden.api.shown_inside import TimingShown
from ekiden.core.timing import timing as timing_of

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["inside"])


@router.get("/{sessionId}/timing", summary="Where its time went", responses=refusals(404))
async def timing(session: KnownSession, here: Here) -> TimingShown:
    """Return the critical path of a session, and what each step had of it, also in words.

    Human time (gates, pauses) is apart from waits, and both from machine time.
    """
    return TimingShown.of(session.id, timing_of(await here.sessions.inside.lived(session)))

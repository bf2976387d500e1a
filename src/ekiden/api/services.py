"""What routes need, and how they ask for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from ekiden.api.counting import Counting
from ekiden.api.limits import INT64_MAX
from ekiden.api.problems import Refusal
from ekiden.api.settings import ApiSettings
from ekiden.api.sse import Watchers
from ekiden.api.tools import Tools
from ekiden.core.records import FlowLine, Revision, Session
from ekiden.errors import NotFound
from ekiden.store.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The concrete objects of this app, built where it was assembled."""

    sessions: Sessions
    watchers: Watchers
    counting: Counting
    settings: ApiSettings
    tools: Tools | None = None


async def _services(request: Request) -> Services:  # a plain function would run in a thread
    services: Services = request.app.state.services
    return services


Here = Annotated[Services, Depends(_services)]
FlowName = Annotated[str, Path(description="name of a flow, as GET /api/flows lists it")]
SessionId = Annotated[str, Path(alias="sessionId", description="a UUID")]
CallId = Annotated[int, Path(alias="callId", ge=1, le=INT64_MAX)]
TaskId = Annotated[int, Path(alias="taskId", ge=1, le=INT64_MAX)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[ -~]{1,255}$",
        description="repeat a request with the same key, and it is done once",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="the ETag of what you looked at: approve only that"),
]


async def _flow(flow: FlowName, here: Here) -> FlowLine:
    found = next((f for f in await here.sessions.flows() if f.name == flow), None)
    if found is None:
        raise NotFound("There is no such flow: no worker has registered one of this name.")
    return found


def no_session(session_id: str) -> NotFound:
    """Return what to raise for a session of another flow."""
    return NotFound(f"There is no session {session_id} of this flow.")


async def _session(flow: FlowName, session_id: SessionId, here: Here) -> Session:
    session = await here.sessions.get(session_id)
    if session.flow != flow:
        raise no_session(session.id)
    return session


KnownFlow = Annotated[FlowLine, Depends(_flow)]
KnownSession = Annotated[Session, Depends(_session)]


def etag(revision: int | None) -> dict[str, str]:
    """Return the header that names what waits at the gate, if there is a gate."""
    return {} if revision is None else {"ETag": f'"{revision}"'}


def standing(session: Session, revisions: Sequence[Revision]) -> int | None:
    """Return the revision that a gate would approve, if the session is at one."""
    if session.status != "AWAITING_REVIEW":
        return None
    here = [r for r in revisions if (r.phase, r.generation) == (session.phase, session.generation)]
    return max(here, key=lambda r: r.number).id if here else None


def revision_of(if_match: str | None) -> int | None:
    """Return the revision an If-Match names; None where any will do.

    Raises:
        Refusal: 412, it names none.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    # Weak tags never match (RFC 9110 §13.1.1), and a gate has one revision, so one tag is meant.
    match = re.fullmatch(r'"(\d{1,19})"', if_match.strip(), re.ASCII)
    if match is None or int(match[1]) > INT64_MAX:
        raise Refusal(
            412,
            "stale-revision",
            'If-Match names no revision. Send back the ETag of progress, for example "17".',
        )
    return int(match[1])

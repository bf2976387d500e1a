"""Decisions at gates and between them, and what people look at before they decide."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from ekiden.api.given import Forking, ReviewGiven
from ekiden.api.limits import INT64_MAX, fit, json_of
from ekiden.api.openapi import body, refusals
from ekiden.api.services import Here, IdempotencyKey, IfMatch, KnownSession, etag, revision_of
from ekiden.api.shown_progress import Progress
from ekiden.api.shown_reviews import Comparison, Decided, ReviewList, Stale, WaitingList

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["reviews"])
queue = APIRouter(tags=["reviews"])

Body = Annotated[Any, Depends(json_of)]
RevisionId = Annotated[int, Query(ge=1, le=INT64_MAX, description="a revision of any session")]


@router.post(
    "/{sessionId}/review",
    summary="Decide",
    responses=refusals(404, 409, 412, 422),
    openapi_extra=body(ReviewGiven, required=True),
)
async def review(
    *,
    session: KnownSession,
    given: Body,
    here: Here,
    response: Response,
    key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> Decided:
    """Take a decision: approve, edit, reject or rerun; accept or retry failed items; set a budget.

    With If-Match only what was looked at is decided on; with Idempotency-Key it is done once. Going
    back runs again exactly the later phases that depended on what changes (`stale`); the others are
    kept (`kept`). A gate that asks for several approvals says how many are `missing`.
    """
    done = await here.sessions.reviews.take(
        session.id, fit(ReviewGiven, given).decision(key=key, revision=revision_of(if_match))
    )
    progress = Progress.model_validate(await here.sessions.progress(session.id))
    response.headers.update(etag(progress.revision))
    if done.repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return Decided(
        # The next gate may be open already; what is missing is told of the one decided on.
        **(progress.model_dump(by_alias=False) | {"missing": done.missing}),
        stale=list(done.stale),
        kept=list(done.kept),
        edited=done.revision if not done.repeated else None,
    )


@router.get("/{sessionId}/reviews", summary="Its decisions", responses=refusals(404))
async def reviews(session: KnownSession, here: Here) -> ReviewList:
    """Return every decision over a session, oldest first: who, what, on which revision, and why."""
    return ReviewList.of(await here.sessions.reviews.of(session.id))


@router.get("/{sessionId}/stale", summary="What a rerun would touch", responses=refusals(404, 422))
async def stale(
    session: KnownSession,
    here: Here,
    phase: Annotated[int, Query(ge=1, le=32, description="the one that would run again")],
) -> Stale:
    """Return which later phases would run again if this phase's output changed, and which not."""
    again, kept = await here.sessions.reviews.would_be_stale(session.id, phase)
    return Stale(phase=phase, stale=again, kept=kept)


@router.get("/{sessionId}/compare", summary="Compare two outputs", responses=refusals(404, 422))
async def compare_revisions(
    session: KnownSession, here: Here, old: RevisionId, new: RevisionId
) -> Comparison:
    """Return what differs between two revisions, of this session or any other."""
    reviews = here.sessions.reviews
    return Comparison.of(await reviews.revision(old), await reviews.revision(new))


@router.post(
    "/{sessionId}/fork",
    status_code=201,
    summary="Fork",
    responses=refusals(404, 409, 422),
    openapi_extra=body(Forking, required=True),
)
async def fork(
    *,
    session: KnownSession,
    given: Body,
    here: Here,
    response: Response,
    key: IdempotencyKey = None,
) -> Progress:
    """Make a new session that shares this one's approved outputs up to a phase, paid once.

    `phase: 0` shares the input alone: a clone. With Idempotency-Key it is made once.
    """
    wanted = fit(Forking, given)
    made, created = await here.sessions.reviews.fork(
        session.id, phase=wanted.phase, actor=wanted.actor, title=wanted.title, start=wanted.start,
        idempotency_key=key,
    )  # fmt: skip
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/api/{session.flow}/cot-session/{made}"
    return Progress.model_validate(await here.sessions.progress(made))


@queue.get("/api/waiting", summary="What waits for a person", responses=refusals(422))
async def waiting(
    here: Here,
    flow: Annotated[str | None, Query(max_length=63)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> WaitingList:
    """Return the sessions that wait for a person, longest first, and how long people take."""
    reviews = here.sessions.reviews
    return WaitingList.of(
        await reviews.waiting(flow=flow, limit=limit), await reviews.waiting_times()
    )

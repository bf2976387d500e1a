"""Sessions: created, started, reviewed, paused, resumed, cancelled. What changes something."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from ekiden.api.given import Act, Creation, Decision, Delivery, OptionsGiven
from ekiden.api.limits import fit, json_of
from ekiden.api.openapi import body, refusals
from ekiden.api.problems import invalid
from ekiden.api.services import (
    FlowName,
    Here,
    IdempotencyKey,
    IfMatch,
    KnownFlow,
    KnownSession,
    Services,
    SessionId,
    etag,
    no_session,
    revision_of,
)
from ekiden.api.shown_progress import Progress, Started
from ekiden.core.records import FlowLine
from ekiden.errors import Conflict
from ekiden.schemas import check, title_of

router = APIRouter(prefix="/api/{flow}/cot-session", tags=["sessions"])

Body = Annotated[Any, Depends(json_of)]
_BESIDE_INPUT = ("title", "start", "options", "actor")


@router.post(
    "/create",
    status_code=201,
    summary="Create a session",
    responses=refusals(404, 409, 422),
    openapi_extra=body(
        Creation,
        required=True,
        or_else={"type": "object", "description": "the input's fields, beside title and options"},
    ),
)
async def create(
    flow: KnownFlow, given: Body, here: Here, response: Response, key: IdempotencyKey = None
) -> Progress:
    """Create a session on the newest version of a flow.

    The input is checked against the flow's schema. It is either the object ``input``, or every
    field of the body but ``title``, ``start``, ``actor`` and ``options``. The first step waits for
    process-async unless ``start`` is true.
    """
    creation = _creation(given)
    check(flow.input_schema, creation.input)
    session_id, created = await here.sessions.create(
        flow.name,
        title=creation.title or title_of(creation.input, flow.input_schema, flow.title),
        input=creation.input,
        options=(creation.options or OptionsGiven()).over(here.settings.options),
        start=creation.start,
        idempotency_key=key,
        actor=creation.actor,
    )
    if not created:
        await _check_same(here, session_id, flow, creation)
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/api/{flow.name}/cot-session/{session_id}"
    return await progress_of(here, session_id, response)


def _creation(given: Any) -> Creation:
    if not isinstance(given, dict):
        raise invalid([("", "must be a JSON object: the session's input")])
    if not isinstance(given.get("input"), dict):
        beside = {name: given[name] for name in _BESIDE_INPUT if name in given}
        rest = {name: value for name, value in given.items() if name not in _BESIDE_INPUT}
        given = {"input": rest, **beside}
    return fit(Creation, given)


async def _check_same(here: Services, session_id: str, flow: FlowLine, creation: Creation) -> None:
    """Refuse a key that was used for something else: the caller would get a stranger's session."""
    session = await here.sessions.get(session_id)
    if session.flow != flow.name or session.input != creation.input or session.parent_id:
        raise Conflict("This Idempotency-Key was used to make another session.")


@router.post(
    "/{sessionId}/process-async",
    status_code=202,
    summary="Start the held tasks",
    responses=refusals(404, 409),
)
async def process_async(session: KnownSession, here: Here, response: Response) -> Started:
    """Let the tasks that wait for a person go. Safe to repeat: what runs is left alone."""
    started = await here.sessions.start(session.id)
    progress = await progress_of(here, session.id, response)
    return Started(**progress.model_dump(by_alias=False), started=started)


@router.post(
    "/{sessionId}/continue-async",
    summary="Look again, or deliver a result",
    responses=refusals(404, 409),
    openapi_extra=body(Delivery, or_else={"type": "object", "maxProperties": 0}),
)
async def continue_async(
    session: KnownSession, given: Body, here: Here, response: Response
) -> Progress:
    """Without a body: make idle workers look again. With one: deliver a running task's result.

    A result counts only under the attempt that runs (its token); a worker then checks it against
    the step's schema and goes on from there.
    """
    if given is None or given == {}:
        await here.sessions.ring()
    else:
        delivery = fit(Delivery, given)
        await here.sessions.deliver(
            session.id,
            task_id=delivery.task_id,
            attempt=delivery.attempt,
            result=delivery.result,
        )
    return await progress_of(here, session.id, response)


@router.post(
    "/{sessionId}/proceed-next-phase",
    summary="Approve the gate",
    responses=refusals(404, 409, 412),
    openapi_extra=body(Decision),
)
async def proceed_next_phase(
    *,
    session: KnownSession,
    given: Body,
    here: Here,
    response: Response,
    key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> Progress:
    """Approve the output that waits at the gate, and begin the next phase.

    With If-Match only the revision that was looked at is approved; however many ask at once, the
    gate is passed once. Where others must approve as well, the session stays at its gate, and
    `missing` says how many.
    """
    decision = fit(Decision, {} if given is None else given)
    done = await here.sessions.approve(
        session.id,
        actor=decision.actor,
        comment=decision.comment,
        revision=revision_of(if_match),
        idempotency_key=key,
    )
    if done.repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return await progress_of(here, session.id, response)


@router.post(
    "/{sessionId}/pause",
    summary="Pause",
    responses=refusals(404, 409),
    openapi_extra=body(Act),
)
async def pause(session: KnownSession, given: Body, here: Here, response: Response) -> Progress:
    """Let what runs end, and start nothing new."""
    await here.sessions.pause(session.id, actor=_actor(given))
    return await progress_of(here, session.id, response)


@router.post(
    "/{sessionId}/resume",
    summary="Resume",
    responses=refusals(404, 409),
    openapi_extra=body(Act),
)
async def resume(session: KnownSession, given: Body, here: Here, response: Response) -> Progress:
    """Go on with a paused or failed session, from where it stopped."""
    await here.sessions.resume(session.id, actor=_actor(given))
    return await progress_of(here, session.id, response)


@router.post(
    "/{sessionId}/cancel",
    summary="Cancel",
    responses=refusals(404, 409),
    openapi_extra=body(Act),
)
async def cancel(session: KnownSession, given: Body, here: Here, response: Response) -> Progress:
    """End a session for good; what it has is kept."""
    await here.sessions.cancel(session.id, actor=_actor(given))
    return await progress_of(here, session.id, response)


@router.get("/{sessionId}/progress", summary="Where it is", responses=refusals(404))
async def progress(
    flow: FlowName, session_id: SessionId, here: Here, response: Response
) -> Progress:
    """Return where the session is, what it waits for, and what it took.

    At a gate the ETag names the output that waits: send it back as If-Match to approve only that.
    """
    found = await progress_of(here, session_id, response)
    if found.flow != flow:
        raise no_session(session_id)
    return found


async def progress_of(here: Services, session_id: str, response: Response) -> Progress:
    """Return where a session is; at a gate the response's ETag names what waits there."""
    shown = Progress.model_validate(await here.sessions.progress(session_id))
    response.headers.update(etag(shown.revision))
    return shown


def _actor(given: Any) -> str:
    return fit(Act, {} if given is None else given).actor

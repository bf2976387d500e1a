"""The engine around the sessions: its flows, its workers, all drafts, and whether it is well."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from ekiden.api.problems import Refusal
from ekiden.api.services import Here
from ekiden.api.shown import Health
from ekiden.api.shown_engine import (
    DraftList,
    FlowList,
    FlowShown,
    WorkerList,
    WorkerShown,
)

router = APIRouter(tags=["engine"])

_PATIENCE = 5.0  # seconds in which a database that is ready answers


@router.get("/api/flows", summary="The flows there are")
async def flows(here: Here) -> FlowList:
    """Return the newest version of every flow that a worker has registered."""
    return FlowList(flows=[FlowShown.model_validate(f) for f in await here.sessions.flows()])


@router.get("/api/workers", summary="The workers there are")
async def workers(here: Here) -> WorkerList:
    """Return the workers that are present, and those that left within a day."""
    return WorkerList(
        workers=[WorkerShown.model_validate(w) for w in await here.sessions.workers()]
    )


@router.get("/api/drafts", summary="The newest drafts")
async def drafts(here: Here, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> DraftList:
    """Return the newest drafts of all sessions."""
    return DraftList.of(await here.sessions.drafts(limit=limit))


@router.get("/healthz", summary="Whether the process is up")
async def healthz() -> Health:
    """Answer. Asks nothing of the database: a restart of ours does not heal one."""
    return Health(status="ok")


@router.get("/readyz", summary="Whether requests can be answered")
async def readyz(here: Here) -> Health:
    """Answer 200 when the database does, else 503."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await here.sessions.flows()
    except TimeoutError:
        raise Refusal(
            503,
            "database-unreachable",
            f"PostgreSQL at {here.sessions.address} did not answer within {_PATIENCE:.0f} s.",
        ) from None
    return Health(status="ready")

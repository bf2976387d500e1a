"""The house: how it does (monitoring), and what it is made of (settings)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ekiden.core.model import SessionState
from ekiden.web.charts import HEIGHT, WIDTH, step_times, throughput
from ekiden.web.rendering import render
from ekiden.web.visit import PageRoute, Visiting

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/monitoring")
async def monitoring(visit: Visiting) -> Response:
    """Show the workers, the queue, and what was done lately."""
    pages = visit.pages
    now = await pages.now()
    tasks = await pages.recent_tasks()
    due, since = await pages.queue()
    counts = await pages.session_counts()
    values: dict[str, Any] = {
        "now": now,
        "workers": await visit.here.sessions.workers(),
        "counts": [(s, counts.get(s, 0)) for s in SessionState],
        "due": due,
        "since": since,
        "chart": throughput(tasks, now),
        "size": (WIDTH, HEIGHT),
        "steps": step_times(tasks),
        "watchers": visit.here.watchers.count,
    }
    if visit.wants_part:
        return visit.answer(render("_monitoring.html", visit.t, **values))
    return await visit.show("monitoring.html", **values)


@router.get("/settings")
async def settings(visit: Visiting) -> Response:
    """Show the flows, the workers, what a new session is given, and the version."""
    return await visit.show(
        "settings.html",
        now=await visit.pages.now(),
        flows=await visit.here.sessions.flows(),
        workers=await visit.here.sessions.workers(),
        options=visit.here.settings.options,
        address=visit.here.sessions.address,
        listening=visit.here.watchers.listening,
    )

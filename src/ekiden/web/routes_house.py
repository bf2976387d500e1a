"""The house: how it does (monitoring), and what it is made of (settings)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ekiden.core.bottlenecks import rank
from ekiden.core.metrics import Window, errors
from ekiden.core.model import SessionState
from ekiden.core.sentences import of_bottleneck
from ekiden.web.charts import HEIGHT, WIDTH, step_times, throughput
from ekiden.web.rendering import render
from ekiden.web.visit import PageRoute, Visiting

_LATELY = Window.H24
_LINES = 8  # of errors, and of bottlenecks

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/monitoring")
async def monitoring(visit: Visiting) -> Response:
    """Show the workers, the queue, and what was done lately."""
    pages = visit.pages
    now = await pages.now()
    tasks = await pages.recent_tasks()
    due, since = await pages.queue()
    counts = await pages.session_counts()
    lately = visit.here.sessions.metrics
    await visit.here.counting.catch_up()
    past, before = await lately.past(_LATELY), await lately.past(_LATELY, ago=1)
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
        "errors": errors(past.facts)[:_LINES],
        "bottlenecks": [
            (found.step.key.flow, of_bottleneck(found, _LATELY)[visit.t.code])
            for found in rank(past.facts, before.facts)[:_LINES]
        ],
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

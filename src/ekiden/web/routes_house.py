"""How the house does: monitoring."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ekiden.api.shown_metrics import BottleneckList, StepMetricsList, Summary
from ekiden.core.metrics import Window
from ekiden.core.model import SessionState
from ekiden.core.sentences import of_alert
from ekiden.web.charts import HEIGHT, WIDTH, throughput
from ekiden.web.rendering import render
from ekiden.web.spans import dollars
from ekiden.web.visit import PageRoute, Visiting

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_WINDOWS = (Window.H1, Window.H24, Window.D7, Window.D30)
_MOST_SENTENCES = 6
_ENDED = {SessionState.COMPLETED, SessionState.CANCELLED}


@router.get("/monitoring")
async def monitoring(visit: Visiting, window: str = "") -> Response:
    """Show how it goes: what is now, a window of time, and where its time went."""
    here = visit.here
    chosen = Window(window) if window in set(_WINDOWS) else Window.H24
    await here.counting.catch_up()
    past = await here.sessions.metrics.past(chosen)
    before = await here.sessions.metrics.past(chosen, ago=1)
    present = await here.sessions.metrics.present()
    summary = Summary.of(past, present, chosen, None, listening=here.watchers.listening)
    bottlenecks = BottleneckList.of(past, before, chosen, None).bottlenecks
    now = await visit.pages.now()
    values: dict[str, Any] = {
        "now": now,
        "windows": _WINDOWS,
        "window": chosen,
        "summary": summary,
        "cost": dollars(summary.calls.cost_usd),
        "steps": StepMetricsList.of(past, chosen, None).steps,
        "alerts": [
            of_alert(a)[visit.t.code] for a in await here.sessions.alerts.list(only_open=True)
        ],
        "sentences": [b.sentences[visit.t.code] for b in bottlenecks[:_MOST_SENTENCES]],
        "open": [(s, present.sessions.get(s, 0)) for s in SessionState if s not in _ENDED],
        "chart": throughput(await visit.pages.recent_tasks(), now),
        "size": (WIDTH, HEIGHT),
        "workers": await here.sessions.workers(),
    }
    if visit.wants_part:
        return visit.answer(render("_monitoring.html", visit.t, **values))
    return await visit.show("monitoring.html", **values)

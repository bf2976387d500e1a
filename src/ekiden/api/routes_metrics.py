"""How it goes, step by step, and where the time goes: read from sums, never from history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from ekiden.api import prometheus
from ekiden.api.openapi import refusals
from ekiden.api.services import Here
from ekiden.api.shown_metrics import AlertList, BottleneckList, StepMetricsList, Summary
from ekiden.core.metrics import Window
from ekiden.errors import NotFound

router = APIRouter(tags=["metrics"])


async def _flow(
    here: Here,
    flow: Annotated[str | None, Query(description="only this flow's; all when left out")] = None,
) -> str | None:
    if flow is not None and all(f.name != flow for f in await here.sessions.flows()):
        raise NotFound("There is no such flow: no worker has registered one of this name.")
    return flow


OneFlow = Annotated[str | None, Depends(_flow)]
Back = Annotated[Window, Query(description="how far back, to the full minute, hour or day")]


@router.get("/api/metrics/summary", summary="How it goes", responses=refusals(404))
async def summary(here: Here, flow: OneFlow, window: Back = Window.H1) -> Summary:
    """Return what a window of time brought, and what is now."""
    await here.counting.catch_up()
    past = await here.sessions.metrics.past(window, flow)
    present = await here.sessions.metrics.present(flow)
    return Summary.of(past, present, window, flow, listening=here.watchers.listening)


@router.get("/api/metrics/steps", summary="Step by step", responses=refusals(404))
async def steps(here: Here, flow: OneFlow, window: Back = Window.H24) -> StepMetricsList:
    """Return each step's times, errors, calls and costs."""
    await here.counting.catch_up()
    return StepMetricsList.of(await here.sessions.metrics.past(window, flow), window, flow)


@router.get("/api/metrics/bottlenecks", summary="Where the time goes", responses=refusals(404))
async def bottlenecks(here: Here, flow: OneFlow, window: Back = Window.D7) -> BottleneckList:
    """Return the steps by their share of machine time, with the trend, and all of it in words."""
    await here.counting.catch_up()
    past = await here.sessions.metrics.past(window, flow)
    before = await here.sessions.metrics.past(window, flow, ago=1)
    return BottleneckList.of(past, before, window, flow)


@router.get("/api/alerts", summary="What is worth attention")
async def alerts(
    here: Here,
    open_: Annotated[bool, Query(alias="open", description="only those that are not over")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AlertList:
    """Return the newest alerts. They are raised while a webhook is told of them."""
    return AlertList.of(await here.sessions.alerts.list(only_open=open_, limit=limit))


@router.get(
    "/metrics",
    summary="The same for Prometheus",
    response_class=Response,
    responses={200: {"description": "text", "content": {"text/plain": {}}}},
)
async def metrics(here: Here) -> Response:
    """Return counters and histograms since the database was made, and gauges of what is now."""
    await here.counting.catch_up()
    body = prometheus.render(
        await here.sessions.metrics.ever(),
        await here.sessions.metrics.present(),
        listening=here.watchers.listening,
    )
    return Response(body, media_type=prometheus.MEDIA_TYPE)

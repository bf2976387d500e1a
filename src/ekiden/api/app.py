"""Assembles the API and its pages. With the command line, all that builds concrete objects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI

from ekiden.api import (
    openapi,
    problems,
    routes_archive,
    routes_engine,
    routes_inside,
    routes_metrics,
    routes_reviews,
    routes_sessions,
    routes_views,
)
from ekiden.api.counting import Counting
from ekiden.api.guard import Guard
from ekiden.api.services import Services
from ekiden.api.settings import ApiSettings, check_bind
from ekiden.api.sse import DoorbellLike, Watchers
from ekiden.api.tools import Tools
from ekiden.store.sessions import Sessions
from ekiden.web import mount as pages

_DESCRIPTION = (
    "Durable, staged sessions with a person at the gates. Errors are RFC 9457 problem details."
)


def create_app(
    sessions: Sessions,
    *,
    doorbell: DoorbellLike,
    settings: ApiSettings,
    tools: Tools | None = None,
) -> FastAPI:
    """Build the API over a store.

    Args:
        sessions: where sessions are kept.
        doorbell: where changes are heard of; entered and left by the caller.
        settings: where it listens and what it takes.
        tools: what the pages can start; without them they do not offer it.

    Raises:
        SettingsError: it would listen to other machines without a key.
    """
    check_bind(settings.host, settings.api_key)
    watchers = Watchers(doorbell, settings)
    counting = Counting(sessions.metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        listening = asyncio.create_task(watchers.run(), name="api-watchers")
        try:
            yield
        finally:
            watchers.close()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await counting.close()

    app = FastAPI(
        title="Ekiden",
        version=version("ekiden"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat whatever Host it was asked with
    )
    app.state.services = Services(
        sessions=sessions, watchers=watchers, counting=counting, settings=settings, tools=tools
    )
    for router in (
        routes_sessions.router,
        routes_archive.router,
        routes_reviews.router,
        routes_views.router,
        routes_inside.router,
        routes_reviews.queue,
        routes_engine.router,
        routes_metrics.router,
    ):
        app.include_router(router)
    door = pages.mount(app, settings)
    problems.install(app, sessions.address)
    openapi.document(app, with_key=bool(settings.api_key))
    # Around everything, the 404 of no route as well.
    app.add_middleware(Guard, settings=settings, pages=door)
    return app


class Server(uvicorn.Server):
    """uvicorn, which ends the event streams before it waits for open requests."""

    def __init__(self, app: FastAPI, settings: ApiSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host.strip("[]"),
                port=settings.port,
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here depends on who is said to ask
                timeout_graceful_shutdown=5,
            )
        )
        self._watchers: Watchers = app.state.services.watchers

    @property
    def bound_port(self) -> int:
        """The port it listens on once started; it may have been asked for any (0)."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no stream would end by itself."""
        self._watchers.close()
        await super().shutdown(sockets)

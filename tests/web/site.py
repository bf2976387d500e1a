"""The pages on a real server, over a real PostgreSQL, with a worker whose model is scripted."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2

from ekiden.api.app import Server, create_app
from ekiden.api.settings import ApiSettings
from ekiden.api.tools import Tools
from ekiden.core.model import Options
from ekiden.flows.registry import CompiledFlow
from ekiden.flows.viral import viral
from ekiden.store.connection import open_pool
from ekiden.store.doorbell import Doorbell
from ekiden.store.sessions import Sessions
from tests.scripted import Script, ScriptedProvider
from tests.web.content import Library, sensible
from tests.worker.relay import working

INPUT = {
    "theme": "home coffee brewing",
    "style": "friendly and clear",
    "platform": "X",
    "language": "en",
}
INPUT_JA = {
    "theme": "在宅勤務の休み方",
    "style": "やさしく、具体的に",
    "platform": "X",
    "language": "ja",
}


class Site:
    """A database with sessions, and servers of its pages."""

    def __init__(self, dsn: str, pool: asyncpg.Pool, stack: AsyncExitStack) -> None:
        self.dsn = dsn
        self.pool = pool
        self.sessions = Sessions(pool, dsn)
        self._stack = stack
        self.servers: list[Server] = []

    async def serve(self, *, port: int = 0, tools: Tools | None = None, **settings: Any) -> str:
        """Start a server; return its address."""
        doorbell = await self._stack.enter_async_context(Doorbell(lambda: self.dsn))
        taken = ApiSettings(port=port, **settings)
        app = create_app(self.sessions, doorbell=doorbell, settings=taken, tools=tools)
        server = Server(app, taken)
        running = asyncio.create_task(server.serve())
        self.servers.append(server)

        async def stop() -> None:
            server.should_exit = True
            await running

        self._stack.push_async_callback(stop)
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        await asyncio.wait_for(doorbell.connected.wait(), 10)
        return f"http://127.0.0.1:{server.bound_port}"

    async def stop(self) -> None:
        """Stop the newest server, as a restart does."""
        server = self.servers.pop()
        server.should_exit = True
        while server.servers and any(s.is_serving() for s in server.servers):
            await asyncio.sleep(0.01)

    async def work(self, script: Script | None = None, *flows: CompiledFlow, **more: Any) -> None:
        """Start a worker that runs the viral flow, or these, until the test ends."""
        provider = ScriptedProvider(script or sensible(), name="scripted", model="writer-1")
        await self._stack.enter_async_context(
            working(self.dsn, *(flows or (CompiledFlow(viral),)), provider=provider,
                    search=Library(), **more)
        )  # fmt: skip

    async def begin(
        self, given: dict[str, Any] | None = None, *, title: str = "", **options: Any
    ) -> str:
        """Create and start a viral session."""
        given = given or INPUT
        session, _ = await self.sessions.create(
            "viral", title=title or given["theme"], input=given, start=True,
            options=Options(retry_delay=timedelta(0), **options),
        )  # fmt: skip
        return session

    async def until(self, session: str, *statuses: str, phase: int = 0) -> dict[str, Any]:
        """Wait for a status, and for a phase if one is named."""
        wanted = statuses or ("AWAITING_REVIEW",)
        progress: dict[str, Any] = {}
        try:
            async with asyncio.timeout(30):
                while True:
                    progress = await self.sessions.progress(session)
                    here = not phase or progress["currentPhase"] == phase
                    if progress["status"] in wanted and here:
                        return progress
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"waited for {wanted} in phase {phase}: {progress}") from None

    async def pass_gates(self, session: str, *, to: int) -> dict[str, Any]:
        """Approve gates until the session stands at the one after phase ``to``."""
        progress = await self.until(session, phase=1)
        for phase in range(2, to + 1):
            await self.sessions.approve(session, actor="Mika")
            progress = await self.until(session, "AWAITING_REVIEW", "COMPLETED", phase=phase)
        return progress


@asynccontextmanager
async def open_site(dsn: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(dsn, size=8))
        yield Site(dsn, pool, stack)


class Person(httpx2.AsyncClient):
    """Somebody whose browser runs no scripts: follows links, fills in forms, keeps cookies."""

    async def send_form(
        self, page: httpx2.Response, action: str, by: str = "", **typed: str
    ) -> httpx2.Response:
        """Send the form of a page that goes to ``action``, with what it holds and what is typed.

        Args:
            page: with the form.
            action: the form's.
            by: the words of a button that sends it elsewhere.
            typed: into its fields.
        """
        match = re.search(
            rf'<form[^>]*method="post"[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>',
            page.text,
            re.DOTALL,
        )
        assert match, f"no form to {action} on {page.url}"
        found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', match[1])
        held = {name: html.unescape(value) for name, value in found}
        if by:
            button = re.search(rf'formaction="([^"]+)">{re.escape(by)}<', match[1])
            assert button, f"no button {by} in the form to {action} on {page.url}"
            action = html.unescape(button[1])
        return await self.post(action, data={**held, **typed})

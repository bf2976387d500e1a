"""A page whose database or connection is away says so, and goes on when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from ekiden.errors import DatabaseUnreachable
from tests.web.browser import needs_chromium, opened
from tests.web.site import Site

pytestmark = needs_chromium

STALE = "What has changed cannot be shown now"


class Away:
    """Lets a question to the database fail while it is set."""

    def __init__(self, asked: Callable[..., Awaitable[Any]]) -> None:
        self.is_set = False
        self._asked = asked

    async def __call__(self, *args: Any, **how: Any) -> Any:
        if self.is_set:
            raise DatabaseUnreachable
        return await self._asked(*args, **how)


async def watched(site: Site, session: str) -> None:
    async with asyncio.timeout(10):
        while not site.servers[-1]._watchers.watching(session):
            await asyncio.sleep(0.01)


async def test_a_session_says_that_the_database_is_away_and_no_more_when_it_is_back(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
):
    await site.work()
    address = await site.serve(sweep=0.05)
    session = await site.begin()
    await site.until(session)
    away = Away(site.sessions.pages.last_event)
    monkeypatch.setattr(site.sessions.pages, "last_event", away)
    page, wrong = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await watched(site, session)
    told = page.locator("#connection")
    for _ in range(2):
        away.is_set = True
        await expect(told).to_contain_text(STALE)
        away.is_set = False
        await expect(told).to_be_hidden()
    await expect(page.locator("#standing")).to_contain_text("Slow pouring at home")
    assert wrong == []


async def test_a_list_that_cannot_be_read_says_so_and_no_more_when_it_can(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
):
    await site.work()
    address = await site.serve(sweep=0.05)
    await site.until(await site.begin(title="the first"))
    away = Away(site.sessions.lists.sessions)
    monkeypatch.setattr(site.sessions.lists, "sessions", away)
    page, _ = await opened(browser)
    await page.goto(address)
    told = page.locator("#connection")
    away.is_set = True
    await expect(told).to_contain_text(STALE)
    await expect(page.get_by_role("link", name="the first")).to_be_visible()
    away.is_set = False
    await expect(told).to_be_hidden()


async def test_a_connection_that_died_without_a_word_is_opened_anew(site: Site, browser: Browser):
    await site.work()
    address = await site.serve(heartbeat=3600)
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser)
    await page.clock.install()
    await page.goto(f"{address}/sessions/{session}")
    await watched(site, session)
    goes_on = asyncio.Event()

    async def hold(route: Route) -> None:
        await goes_on.wait()
        await route.continue_()

    await page.route("**/events**", hold)
    await page.clock.fast_forward(46_000)
    told = page.locator("#connection")
    await expect(told).to_contain_text("The connection is gone.")
    goes_on.set()
    await expect(told).to_be_hidden()
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    assert wrong == []


async def test_a_connection_that_says_that_it_is_alive_is_left_open(site: Site, browser: Browser):
    await site.work()
    address = await site.serve(heartbeat=0.05)
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser)
    await page.clock.install()
    await page.add_init_script(
        "const Source = EventSource; window.EventSource = class extends Source {"
        " constructor(url) { super(url); window.stream = this; } };"
    )
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "/events" in r.url else None)
    await page.goto(f"{address}/sessions/{session}")
    for _ in range(3):
        await page.evaluate(
            "new Promise(d => stream.addEventListener('alive', () => d(), {once: true}))"
        )
        await page.clock.fast_forward(30_000)
    assert len(asked) == 1
    await expect(page.locator("#connection")).to_be_hidden()

"""What a person has opened, scrolled and reached stays while the page around it is replaced."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from ekiden import Context, Flow, Phase
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said, Streamed
from tests.web.browser import needs_chromium, opened
from tests.web.site import Site
from tests.worker.relay import QUICK, Count

pytestmark = needs_chromium

PHONE = {"width": 390, "height": 800}


async def mark(page: Page, part: str) -> None:
    await page.evaluate("id => { document.getElementById(id).ofBefore = true; }", part)


async def replaced(page: Page, part: str) -> None:
    """Wait until a part is another than the one that was marked."""
    await page.wait_for_function("id => !document.getElementById(id).ofBefore", arg=part)


async def ask(page: Page, selector: str, what: str) -> Any:
    """Find and ask in one step: a locator's element may be replaced in between."""
    return await page.evaluate(f"({what})(document.querySelector({json.dumps(selector)}))")


@pytest.mark.parametrize("path", ["/", "/inbox"])
async def test_a_list_that_changes_keeps_the_focus(site: Site, browser: Browser, path: str):
    await site.work()
    address = await site.serve()
    first = await site.begin(title="the first")
    await site.until(first)
    page, wrong = await opened(browser)
    await page.goto(address + path)
    await page.locator("body").press("j")
    link = page.locator(f'.line-link[href="/sessions/{first}"]')
    await expect(link).to_be_focused()
    second = await site.begin(title="the second")
    await expect(page.get_by_role("link", name="the second")).to_be_visible()
    await expect(link).to_be_focused()
    if path == "/":
        box = page.locator(f'[name="s-{second}"]')
        await box.focus()
        await site.begin(title="the third")
        await expect(page.get_by_role("link", name="the third")).to_be_visible()
        await expect(box).to_be_focused()
    assert wrong == []


async def test_monitoring_keeps_what_is_open_scrolled_and_reached(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser, viewport=PHONE)
    await page.goto(f"{address}/monitoring")
    await page.locator("#chart-table > summary").click()
    table = '.scroll[aria-label="Workers"]'
    workers = page.locator(table)
    summary = page.locator("#chart-table > summary")
    week = page.locator('.tabs a[href$="7d"]')
    for phase, reached in ((2, summary), (3, week), (4, workers)):
        await reached.focus()
        await ask(page, table, "e => { e.scrollLeft = 60; }")
        await mark(page, "list")
        await site.sessions.approve(session, actor="Mika")
        await site.until(session, phase=phase)
        await replaced(page, "list")
        await expect(page.locator("#chart-table")).to_have_attribute("open", "")
        assert await ask(page, table, "e => e.scrollLeft") == 60
        await expect(reached).to_be_focused()
    assert wrong == []


async def test_the_time_line_and_its_table_keep_their_scroll_and_focus(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser, viewport=PHONE)
    await page.goto(f"{address}/sessions/{session}")
    await page.locator("#tasks-shown > summary").click()
    places = {"#waterfall": 120, "#tasks-shown .scroll": 50}
    link = page.locator("#tasks-shown tbody a").first
    await link.focus()
    for place, left in places.items():
        await ask(page, place, f"e => {{ e.scrollLeft = {left}; }}")
    await mark(page, "time")
    await site.sessions.approve(session, actor="Mika")
    await site.until(session, phase=2)
    await replaced(page, "time")
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    for place, left in places.items():
        assert await ask(page, place, "e => e.scrollLeft") == left
    await expect(link).to_be_focused()
    assert wrong == []


async def test_a_decision_is_not_reached_again_when_it_is_another_one(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await page.get_by_role("button", name="Approve and go on").focus()
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    button = page.get_by_role("button", name="Approve and go on")
    await expect(button).to_be_visible()
    await expect(button).not_to_be_focused()


class Write(Phase):
    """Write"""

    async def think(self, ctx: Context) -> str:
        begun = await ctx.ask("begin", str)
        return begun + await ctx.ask("go on", str)

    async def integrate(self, ctx: Context, plan: str) -> str:
        return plan


class Long:
    """A script that fills a pane, and says more, and ends, when the test lets it."""

    def __init__(self) -> None:
        self.goes_on, self.ends = asyncio.Event(), asyncio.Event()
        self.asked = 0

    async def __call__(self, request: ModelRequest) -> Said:
        self.asked += 1
        if self.asked == 1:
            return Streamed(pieces=tuple(f"line {n}\n" for n in range(600)), then=self.goes_on)
        return Streamed(pieces=tuple(f"more {n}\n" for n in range(200)), then=self.ends)


async def writing(site: Site) -> tuple[Long, str, str]:
    """Begin a session that fills a pane; return its script, its id and its page's address."""
    script = Long()
    await site.work(script, CompiledFlow(Flow("write", input=Count, phases=[Write])))
    address = await site.serve()
    session, _ = await site.sessions.create("write", title="t", input={}, options=QUICK, start=True)
    return script, session, f"{address}/sessions/{session}"


async def test_who_reads_further_up_in_a_running_text_is_left_where_they_are(
    site: Site, browser: Browser
):
    script, session, shown_at = await writing(site)
    page, wrong = await opened(browser)
    await page.goto(shown_at)
    pane = page.locator(".said-text")
    await expect(pane).to_contain_text("line 599")

    async def from_end() -> float:
        return await ask(page, ".said-text", "e => e.scrollHeight - e.scrollTop - e.clientHeight")

    async def where() -> list[object]:
        return await ask(page, ".said-text", "e => [e.scrollTop, e.textContent.slice(0, 200)]")

    async def go(top: int) -> None:
        await ask(page, ".said-text", f"e => {{ e.scrollTop = {top}; }}")

    assert await from_end() < 2  # who does not touch it reads along
    await go(300)
    left_at = await where()
    assert left_at[0] == 300
    await mark(page, "top")
    await site.sessions.pause(session, actor="Mika")  # what runs ends; the page says that it pauses
    await replaced(page, "top")
    assert await where() == left_at
    script.goes_on.set()
    await expect(pane).to_contain_text("more 199")
    assert await where() == left_at
    # Back at the end, they read along again, through a change of the page as well.
    await go(1_000_000)
    await mark(page, "top")
    await site.sessions.resume(session, actor="Mika")
    await replaced(page, "top")
    assert await from_end() < 2
    script.ends.set()
    await site.until(session, "COMPLETED")
    assert wrong == []


async def test_who_scrolls_before_the_page_hears_anything_is_left_where_they_are(
    site: Site, browser: Browser
):
    script, session, shown_at = await writing(site)
    first, _ = await opened(browser)
    await first.goto(shown_at)
    await expect(first.locator(".said-text")).to_contain_text("line 599")
    page, wrong = await opened(browser)
    may_hear = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_hear.wait()
        await route.continue_()

    await page.route("**/events*", hold)
    await page.goto(shown_at)
    pane = page.locator(".said-text")
    await expect(pane).to_contain_text("line 599")
    await ask(page, ".said-text", "e => { e.scrollTop = 300; }")
    reading = "e => [e.scrollTop, e.textContent.slice(0, 200)]"
    left_at = await ask(page, ".said-text", reading)
    assert left_at[1].startswith("… ")  # only the end comes with the page
    may_hear.set()
    script.goes_on.set()
    await expect(pane).to_contain_text("more 199")
    assert await ask(page, ".said-text", reading) == left_at
    script.ends.set()
    await site.until(session, "COMPLETED")
    assert wrong == []

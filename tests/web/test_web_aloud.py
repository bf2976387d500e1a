"""What a screen reader is told while a page lives: each trouble once, and no time that goes by."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from playwright.async_api import Browser, Page, expect

from ekiden import Context, Flow, Phase
from ekiden.core.model import Options
from ekiden.errors import ModelUnavailable
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said
from tests.web.browser import needs_chromium, opened
from tests.web.site import Site
from tests.worker.relay import Count

pytestmark = needs_chromium

# Every text that any live region was given, empty ones left out.
LISTEN = """() => {
    const of = e => e.nodeType === 1 ? e : e.parentElement;
    window.spoken = [];
    new MutationObserver(seen => {
        for (const region of new Set(seen.map(m => of(m.target)?.closest('[role=status]'))))
            if (region?.textContent) window.spoken.push(region.textContent);
        for (const m of seen) for (const e of m.addedNodes)
            for (const region of e.querySelectorAll?.('[role=status]') ?? [])
                if (region.textContent) window.spoken.push(region.textContent);
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


async def spoken(page: Page) -> list[str]:
    return await page.evaluate("window.spoken")


class Pair(Phase):
    """One that goes wrong, and one that goes on"""

    async def think(self, ctx: Context) -> list[int]:
        return [0, 1]

    def each(self, plan: list[int]) -> list[int]:
        return plan

    async def execute(self, ctx: Context, number: int) -> str:
        if number == 0:
            raise ModelUnavailable("planted")
        return await ctx.ask("go on", str)

    async def integrate(self, ctx: Context, plan: list[int], found: list[str]) -> str:
        return found[0]


async def test_a_trouble_is_told_once_and_without_its_times(site: Site, browser: Browser):
    goes_on = asyncio.Event()

    async def script(_request: ModelRequest) -> Said:
        await goes_on.wait()
        return "done"

    await site.work(script, CompiledFlow(Flow("pair", input=Count, phases=[Pair])))
    address = await site.serve(heartbeat=0.05)
    session, _ = await site.sessions.create(
        "pair", title="t", input={}, options=Options(retry_delay=timedelta(hours=1))
    )
    page, wrong = await opened(browser)
    await page.clock.install()
    await page.goto(f"{address}/sessions/{session}")
    await page.evaluate(LISTEN)
    await site.sessions.start(session)
    await expect(page.locator(".trouble")).to_contain_text("It is tried again")
    what = await page.locator(".trouble-what").text_content()
    await expect(page.locator("#aloud")).to_contain_text(what or "?")
    await page.clock.fast_forward(30_000)  # the page tells its times anew
    goes_on.set()  # the other item ends, and what is told of the trouble is replaced
    await expect(page.locator("#top")).to_contain_text("1/2")
    await expect(page.locator(".trouble")).to_be_visible()
    (told,) = await spoken(page)
    assert "tried again in" not in told
    assert wrong == []


async def test_an_alert_is_told_when_it_begins(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    page, wrong = await opened(browser)
    await page.goto(f"{address}/monitoring")
    await page.evaluate(LISTEN)
    await site.pool.execute(
        "INSERT INTO ekiden.alerts (kind, subject, value, threshold)"
        " VALUES ('workers_lost', '', 2, 1)"
    )
    session = await site.begin()
    await expect(page.locator("#list").get_by_text("2 workers lost")).to_be_visible()
    await page.evaluate("document.getElementById('list').ofBefore = true")
    await site.until(session)
    await site.sessions.approve(session, actor="Mika")
    await page.wait_for_function("() => !document.getElementById('list').ofBefore")
    (told,) = await spoken(page)
    assert "2 workers lost" in told
    assert wrong == []


async def test_how_close_the_time_line_is_is_told_when_somebody_zooms(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await page.evaluate(LISTEN)
    await page.locator("#waterfall").press("+")
    await site.sessions.approve(session, actor="Mika")
    await site.until(session, phase=2)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    await expect(page.locator("#zoom-told")).to_have_text("2.0 times as close")
    assert await spoken(page) == ["2.0 times as close"]
    assert wrong == []

"""The time line in a browser: closer and back, by key, button and pointer, while the page lives."""

from __future__ import annotations

from playwright.async_api import Browser, Page, expect

from tests.web.browser import needs_chromium, opened
from tests.web.site import Site

pytestmark = needs_chromium

FIRST = ".bars .bar-run >> nth=0"


async def width(page: Page) -> float:
    return float(await page.locator(FIRST).get_attribute("width") or 0)


async def test_the_time_line_comes_closer_and_stays_so_while_the_session_goes_on(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    drawing = page.locator(".waterfall-scroll")
    whole = await width(page)
    await expect(page.get_by_role("button", name="Whole")).to_have_attribute(
        "aria-disabled", "true"
    )
    await drawing.press("+")
    await page.get_by_role("button", name="Closer").click()
    assert round(await width(page) / whole, 3) == 4
    await expect(page.locator("#zoom-told")).to_have_text("4.0 times as close")

    bar = page.locator(FIRST)
    left = float(await bar.get_attribute("x") or 0)
    await drawing.press("ArrowRight")
    assert float(await bar.get_attribute("x") or 0) < left

    # New bars are drawn as close as the old ones.
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    await expect(page.locator(".waterfall.zoomed")).to_have_count(1)
    await expect(page.locator("#zoom-told")).to_have_text("4.0 times as close")
    await drawing.press("0")
    await expect(page.locator(".waterfall.zoomed")).to_have_count(0)
    assert await page.evaluate(
        "[...document.querySelectorAll('.bars rect')].every(r => Number(r.getAttribute('x')) >= 0)"
    )
    await page.locator(".waterfall").scroll_into_view_if_needed()
    await page.locator(".waterfall").hover()
    await page.keyboard.down("Control")
    await page.mouse.wheel(0, -300)
    await page.keyboard.up("Control")
    await expect(page.locator(".waterfall.zoomed")).to_have_count(1)
    assert wrong == []


async def test_without_scripts_the_whole_time_line_and_its_table_are_there(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    page, _ = await opened(browser, java_script_enabled=False)
    await page.goto(f"{address}/sessions/{session}")
    await expect(page.get_by_role("button", name="Closer")).to_have_count(0)
    assert await width(page) > 0
    await page.locator("#tasks-shown > summary").click()
    tasks = len(await site.sessions.tasks(session))
    await expect(page.locator("#tasks-shown tbody tr")).to_have_count(tasks)
    waited_for = page.locator("#tasks-shown tbody td:last-child", has_text="yes")
    assert await waited_for.count() >= 10  # one a step at least

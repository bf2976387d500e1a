"""A browser in front of a login: over plain HTTP from elsewhere, and when the login ends."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Page, Request, expect

from tests.web.browser import needs_chromium, opened
from tests.web.site import Site

pytestmark = needs_chromium

KEY = "a key of this test"


async def logged_in(browser: Browser, url: str) -> tuple[Page, list[str]]:
    page, wrong = await opened(browser)
    await page.clock.install()
    await page.goto(url)
    await log_in(page)
    await page.wait_for_url(url)
    return page, wrong


async def log_in(page: Page) -> None:
    await page.get_by_label("Key").fill(KEY)
    await page.get_by_role("button", name="Log in").click()


async def test_copy_works_over_plain_http_as_well(site: Site, browser: Browser):
    await site.work()
    address = await site.serve(api_key=KEY)
    session = await site.begin()
    await site.pass_gates(session, to=4)
    elsewhere = address.replace("127.0.0.1", "ekiden.test")
    page, wrong = await logged_in(browser, f"{elsewhere}/sessions/{session}")
    assert await page.evaluate("isSecureContext") is False
    button = page.locator("#standing .copy").first
    wanted = await button.get_attribute("data-copy") or ""
    assert "\n" in wanted  # its lines stay lines
    await button.click()
    await expect(button).to_have_text("Copied")
    await expect(button).to_be_focused()
    await page.get_by_label("Comment").first.press("Control+V")
    await expect(page.get_by_label("Comment").first).to_have_value(wanted)
    assert wrong == []


async def test_a_page_whose_login_has_ended_says_so_and_stops_trying(site: Site, browser: Browser):
    await site.work()
    address = await site.serve(api_key=KEY)
    session = await site.begin()
    await site.until(session)
    here = f"{address}/sessions/{session}"
    page, _ = await logged_in(browser, here)
    told = page.locator("#connection")
    await page.context.clear_cookies(name="ekiden_login")
    await site.stop()
    await site.serve(port=int(address.rpartition(":")[2]), api_key=KEY)
    await expect(told).to_contain_text("Your login has ended", timeout=30_000)

    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    await page.clock.fast_forward(120_000)
    assert asked == []
    page.remove_listener("request", note)

    # Logged in again in another tab, it goes on when somebody looks at it.
    other = await page.context.new_page()
    await other.goto(address)
    await log_in(other)
    await other.wait_for_url(f"{address}/")
    look = """hidden => {
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    await page.evaluate(look, True)
    await page.evaluate(look, False)
    await expect(told).to_be_hidden()
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")

    # Else its link leads to the login, and from there back.
    await page.context.clear_cookies(name="ekiden_login")
    await page.evaluate(look, True)
    await page.evaluate(look, False)
    await told.get_by_role("link", name="Log in").click()
    await page.wait_for_url(re.compile(r"/login\?"))
    await log_in(page)
    await page.wait_for_url(here)


async def test_a_list_whose_login_has_ended_says_so_and_comes_back_as_it_was(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve(api_key=KEY)
    session = await site.begin(title="of before")
    await site.until(session)
    page, _ = await logged_in(browser, f"{address}/?q=before&lang=en")
    await page.get_by_role("searchbox").fill("half a wo")
    await page.context.clear_cookies(name="ekiden_login")
    await site.begin(title="another before")  # the list asks for itself
    await expect(page.locator("#connection")).to_contain_text("Your login has ended")
    await expect(page.get_by_role("link", name="of before")).to_be_visible()
    await expect(page.get_by_role("searchbox")).to_have_value("half a wo")
    await page.locator("#connection").get_by_role("link", name="Log in").click()
    await log_in(page)
    await page.wait_for_url(f"{address}/?q=before&lang=en")
    await expect(page.get_by_role("link", name="another before")).to_be_visible()

"""The pages in a browser: live, with scripts and without, with two people, over a restart."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, expect

from ekiden.providers.protocol import ModelRequest
from tests.scripted import Said, Streamed
from tests.web.browser import needs_chromium, opened
from tests.web.content import sensible
from tests.web.site import INPUT, Site

pytestmark = needs_chromium


class Slow:
    """A script that ends one answer only when the test lets it."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self._answer = sensible()

    async def __call__(self, request: ModelRequest) -> Said:
        said = await self._answer(request)
        assert isinstance(said, Streamed)
        if request.schema_name == "CriteriaAnswer" and not self.goes_on.is_set():
            return Streamed(pieces=said.pieces, then=self.goes_on)
        return said


async def test_create_watch_it_stream_approve_edit_send_back_complete_and_find_the_drafts(
    site: Site, browser: Browser
):
    slow = Slow()
    await site.work(slow)
    address = await site.serve()
    page, wrong = await opened(browser)
    await page.goto(f"{address}/new")
    await page.get_by_label("Theme").fill("home coffee brewing")
    await page.get_by_role("button", name="Start the session").click()
    await page.wait_for_url(re.compile(r"/sessions/"))
    session = page.url.rpartition("/")[2]

    # The page hears of the gate by itself.
    await expect(page.get_by_role("heading", name="Your decision")).to_be_visible()
    await expect(page.locator("#standing")).to_contain_text("Slow pouring at home")
    await page.get_by_label("Your name").first.fill("Mika")
    await page.get_by_role("button", name="Approve and go on").click()

    # A running step's text arrives as it is written, without the signs of JSON.
    said = page.locator(".said-text")
    await expect(said).to_contain_text("audience: People who brew at home")
    assert "{" not in (await said.text_content() or "")
    slow.goes_on.set()
    await expect(page.get_by_role("heading", name="Your decision")).to_be_visible()
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")

    # Edit what stands, then approve that.
    await page.get_by_role("link", name="Edit the text").click()
    await page.get_by_label("Audience").fill("Everybody with a kettle.")
    await page.get_by_label("Why did you change it?").fill("shorter")
    await page.get_by_role("button", name="Save as a new version").click()
    await expect(page.locator("#standing")).to_contain_text("Everybody with a kettle.")
    await expect(page.locator("#standing")).to_contain_text("edited by Mika")
    await page.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=3)

    # Send phase 3 back with a note; it runs again and waits again.
    await expect(page.locator("#standing")).to_contain_text("Bitter is not strong.")
    await page.get_by_text("Send back with a note").click()
    await page.get_by_label("What should be different?").fill("More like a story.")
    await page.get_by_role("button", name="Send back").click()
    await site.until(session, phase=3)
    await expect(page.locator("#standing")).to_contain_text("More like a story.")
    for phase in (3, 4):
        await site.until(session, phase=phase)
        await expect(page.locator(f"#phase-{phase}")).to_be_visible()
        await expect(page.get_by_role("heading", name="Your decision")).to_be_visible()
        await page.get_by_role("button", name="Approve and go on").click()
    await expect(page.locator("#top")).to_contain_text("Finished: the drafts are ready.")
    await page.goto(f"{address}/drafts")
    await expect(page.locator(".draft")).to_have_count(3)
    reviews = await site.sessions.reviews.of(session)
    assert [(r.phase, r.verb, r.actor) for r in reviews] == [
        (1, "approve", "Mika"), (2, "edit", "Mika"), (2, "approve", "Mika"), (3, "reject", "Mika"),
        (3, "approve", "Mika"), (4, "approve", "Mika"),
    ]  # fmt: skip
    assert wrong == []


async def test_without_scripts_a_person_reads_and_decides(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser, java_script_enabled=False)
    await page.goto(f"{address}/inbox")
    await page.get_by_role("link", name=INPUT["theme"]).click()
    await expect(page.locator("#standing")).to_contain_text("Slow pouring at home")
    await page.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=2)
    await page.reload()
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    await expect(page.get_by_role("button", name="Copy")).to_have_count(0)  # it needs scripts


async def test_two_browsers_at_one_gate_decide_once_and_lose_no_word(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    one, _ = await opened(browser)
    other, _ = await opened(browser)
    await one.goto(f"{address}/sessions/{session}")
    async with asyncio.timeout(10):
        while not site.servers[-1]._watchers.watching(session):
            await asyncio.sleep(0.01)
    await other.goto(f"{address}/sessions/{session}")
    await expect(other.locator("#act")).to_contain_text("Others with this page open: 1")
    await other.get_by_label("Comment").first.fill("I have doubts about the second trend.")
    await one.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=2)
    # The other page says that it moved on, and keeps the text.
    await expect(other.locator(".moved-on")).to_be_visible()
    await expect(other.get_by_label("Comment").first).to_have_value(
        "I have doubts about the second trend."
    )
    await other.get_by_role("button", name="Approve and go on").click()
    await expect(other.locator(".told").first).to_contain_text("changed while you were looking")
    await expect(other.get_by_label("Comment").first).to_have_value(
        "I have doubts about the second trend."
    )
    assert (await site.sessions.get(session)).phase == 2
    assert len(await site.sessions.reviews.of(session)) == 1
    # Given back as it was typed, it stays whatever happens next.
    await site.sessions.approve(session, actor="Ren")
    await expect(other.locator(".moved-on")).to_be_visible()
    await expect(other.get_by_label("Comment").first).to_have_value(
        "I have doubts about the second trend."
    )


async def test_a_link_from_another_site_leaves_the_forms_of_other_tabs_as_they_are(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await page.get_by_label("Your name").first.fill("Mika")
    await page.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=2)
    await page.goto(f"{address}/sessions/{session}")
    await page.get_by_label("Comment").first.fill("half a th")

    mail = await page.context.new_page()
    link = f'<!doctype html><a href="{address}/sessions/{session}">It waits for you</a>'
    await mail.route(
        "http://mail.test/", lambda route: route.fulfill(body=link, content_type="text/html")
    )
    await mail.goto("http://mail.test/")
    await mail.get_by_role("link").click()
    await expect(mail.get_by_label("Your name").first).to_have_value("Mika")

    await page.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=3)
    (_, second) = await site.sessions.reviews.of(session)
    assert (second.actor, second.comment) == ("Mika", "half a th")


async def test_what_is_changed_after_going_back_is_not_lost(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, wrong = await opened(browser)
    await page.goto(f"{address}/sessions/{session}/edit?phase=1")
    name = page.locator('[name="/trends/0/name"]')
    save = page.get_by_role("button", name="Save as a new version")
    await name.fill("first try")
    await save.click()
    await page.wait_for_url(f"{address}/sessions/{session}")
    await page.evaluate("history.back()")
    await expect(name).to_have_value("first try")
    await name.fill("second try")
    await expect(page.locator("form[data-sent]")).to_have_count(0)  # no double click any more
    await save.click()
    await expect(page.get_by_role("alert")).to_contain_text("while you were editing")
    await expect(name).to_have_value("second try")
    await save.click()
    await expect(page.locator("#standing")).to_contain_text("second try")
    reviews = await site.sessions.reviews.of(session)
    assert [r.verb for r in reviews] == ["edit", "edit"]
    assert wrong == []


async def test_without_scripts_an_edit_goes_on_in_the_other_form(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser, java_script_enabled=False)
    await page.goto(f"{address}/sessions/{session}/edit?phase=1")
    name = page.locator('[name="/trends/0/name"]')
    await name.fill("typed in a field")
    await page.get_by_role("button", name="Edit as JSON").click()
    raw = page.get_by_label("Output as JSON")
    text = await raw.input_value()
    assert "typed in a field" in text
    await raw.fill(text.replace("typed in a field", "typed as JSON"))
    await page.get_by_role("button", name="Edit field by field").click()
    await expect(name).to_have_value("typed as JSON")
    await name.press("Enter")  # saves: it is the first button
    await expect(page.locator("#standing")).to_contain_text("typed as JSON")
    assert [r.verb for r in await site.sessions.reviews.of(session)] == ["edit"]


async def test_a_tab_that_nobody_looks_at_holds_no_stream_and_catches_up_when_it_is_looked_at(
    site: Site, browser: Browser
):
    await site.work()
    address = await site.serve()
    session = await site.begin()
    await site.until(session)
    watchers = site.servers[-1]._watchers

    async def watched(count: int) -> None:
        async with asyncio.timeout(10):
            while watchers.watching(session) != count:
                await asyncio.sleep(0.01)

    page, wrong = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await watched(1)
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    await page.evaluate(hide, True)
    await watched(0)
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await page.evaluate(hide, False)
    await expect(page.locator("#standing")).to_contain_text("One minute that changes the cup")
    assert wrong == []


async def test_a_restart_of_the_server_is_survived_by_an_open_page(site: Site, browser: Browser):
    await site.work()
    address = await site.serve()
    port = int(address.rpartition(":")[2])
    session = await site.begin()
    await site.until(session)
    page, _ = await opened(browser)
    await page.goto(f"{address}/sessions/{session}")
    await expect(page.locator("#standing")).to_contain_text("Slow pouring at home")
    await site.stop()
    await site.sessions.approve(session, actor="somebody else")
    await site.until(session, phase=2)
    await site.serve(port=port)
    await expect(page.locator("#standing")).to_contain_text(
        "One minute that changes the cup", timeout=30_000
    )
    await page.get_by_role("button", name="Approve and go on").click()
    await site.until(session, phase=3)
    await expect(page.locator("#standing")).to_contain_text("Bitter is not strong.")

"""Everybody can read the pages: axe-core finds nothing, and nothing is wider than a phone."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.async_api import Browser

from tests.web.browser import needs_chromium, opened
from tests.web.site import Site

pytestmark = needs_chromium

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
RULES = (
    "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_pages_are_accessible_and_fit_the_screen(
    site: Site, browser: Browser, width: int, scheme: str
):
    await site.work()
    address = await site.serve()
    gate, done = await site.begin(), await site.begin(auto_phases=True)
    await site.until(gate)
    await site.until(done, "COMPLETED")
    task = (await site.sessions.tasks(gate))[0].id
    page, _ = await opened(
        browser, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    paths = (
        "/", "/?archived=1", "/inbox", "/new/viral", "/drafts", "/monitoring", "/settings",
        f"/sessions/{gate}",
        f"/sessions/{done}", f"/sessions/{gate}/tasks/{task}", f"/sessions/{gate}/edit?phase=1",
        f"/sessions/{gate}/rerun", f"/sessions/{gate}/replay", "/sessions/x",
    )  # fmt: skip
    for path in paths:
        await page.goto(f"{address}{path}")
        await page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        await page.evaluate(AXE)
        found = await page.evaluate(RULES)
        problems = [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found["violations"]]
        assert problems == [], path
        room = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert room[0] <= room[1], f"{path} is wider than the screen"

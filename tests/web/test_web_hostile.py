"""Whatever a model or a stranger writes: it is shown, runs nothing, and loads nothing."""

from __future__ import annotations

import json

from playwright.async_api import Browser

from ekiden.core.model import Options
from ekiden.core.records import Partial
from tests.api.relay import Relay
from tests.web.browser import needs_chromium, opened
from tests.web.content import HOSTILE
from tests.web.site import Site

pytestmark = needs_chromium

TEXT = "\n".join(HOSTILE)
OUTPUT = {
    "title": TEXT,
    "posts": [{"title": h, "text": f"{h} {TEXT}", "hashtags": [f"#{h}"]} for h in HOSTILE],
    "sources": [{"title": h, "url": h, "snippet": TEXT} for h in (*HOSTILE, "javascript:x")],
    **{h: {"a": h, "b": [h], "c": [{h: h}]} for h in HOSTILE},
    "line": "x" * 150_000,
}
# Larger than a page shows at all.
HUGE = {"title": TEXT, "line": "<script>window.pwned=7</script>" * 170_000}


async def seeded(site: Site) -> list[str]:
    """Return sessions at a gate, at a gate with five megabytes, and running."""
    relay = Relay(site.pool, site.dsn)
    await relay.open()
    made = []
    for output in (OUTPUT, HUGE, None):
        session, _ = await site.sessions.create(
            "demo", title=TEXT[:500], input={"theme": TEXT}, options=Options(), start=True
        )
        made.append(session)
        task = await relay.claim(session)
        if output is None:
            said = Partial(
                session_id=session, task_id=task.id, attempt=task.attempt, call=1, seq=1, text=TEXT
            )
            await site.sessions.partials.append([said])
            continue
        await relay.complete(task, json.dumps(output))
        await relay.complete(await relay.claim(session), json.dumps(output))
    return made


async def test_hostile_output_runs_nothing_and_loads_nothing_on_any_page(
    site: Site, browser: Browser
):
    made = await seeded(site)
    address = await site.serve()
    page, wrong = await opened(browser)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    tasks = [f"/sessions/{s}/tasks/{t.id}" for s in made for t in await site.sessions.tasks(s)]
    paths = [
        "/", f"/?q={HOSTILE[0]}", "/inbox", "/drafts", "/monitoring", "/settings", "/new/demo",
        *(f"/sessions/{s}" for s in made), *tasks, f"/sessions/{made[0]}/edit?phase=1",
        f"/sessions/{made[0]}/edit?phase=1&raw=true", f"/sessions/{made[0]}/rerun",
    ]  # fmt: skip
    for path in paths:
        await page.goto(f"{address}{path}")
        await page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        await page.wait_for_timeout(60)
        assert await page.evaluate("window.pwned") is None, path
        foreign = "script:not([src]), iframe, main img, main [onerror], main [onload]"
        assert await page.locator(foreign).count() == 0, path
        assert await page.locator("a[href^='javascript' i]").count() == 0, path
    assert {url for url in asked if not url.startswith(address)} == set()
    assert wrong == []


async def test_characters_that_cannot_be_seen_are_shown(site: Site, browser: Browser):
    gate, huge, running = await seeded(site)
    address = await site.serve()
    page, _ = await opened(browser)
    await page.goto(f"{address}/sessions/{gate}")
    for code in ("U+202E", "U+200B", "U+2066", "U+0007", "U+001B"):
        assert await page.locator(".hidden-char", has_text=code).count() > 0, code
    await page.goto(f"{address}/sessions/{running}")
    said = await page.locator(".said-text").inner_text()
    assert "U+202E" in said
    assert "\u202e" not in said
    await page.goto(f"{address}/sessions/{huge}")
    shown = await page.locator("#standing").inner_text()
    assert "too many for a page" in shown

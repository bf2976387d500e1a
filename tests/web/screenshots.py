"""Every page, light and dark, in both languages, wide and narrow: python -m tests.web.screenshots

Writes build/screenshots/. Needs Debian's chromium.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import structlog
from playwright.async_api import Browser, async_playwright

from ekiden.cli.tools import Commands
from ekiden.config import load_settings
from ekiden.errors import ModelUnavailable
from ekiden.providers.protocol import ModelRequest
from ekiden.store.embedded import EmbeddedServer
from ekiden.store.migrate import migrate
from tests.scripted import Said
from tests.web.browser import CHROMIUM, launch
from tests.web.content import sensible
from tests.web.site import INPUT, INPUT_JA, Site, open_site

OUT = Path("build/screenshots")
ENGLISH = (
    "home coffee brewing",
    "winter cycling for beginners",
    "a first sourdough",
    "indoor plants that survive",
    "learning to sketch at lunch",
)
JAPANESE = ("在宅勤務の休み方", "はじめての家庭菜園", "古い団地のリノベーション")


async def seed(site: Site) -> dict[str, str]:
    """Bring sessions into every state a person meets; return one id for each."""

    async def hold(request: ModelRequest) -> None:
        prompt = " ".join(m.content for m in request.messages)
        if "sketch" in prompt and request.schema_name == "IdeaAnswer":
            await asyncio.sleep(3600)

    answer = sensible(hold=hold, pause=0.05)

    async def script(request: ModelRequest) -> Said:
        prompt = " ".join(m.content for m in request.messages)
        if "indoor plants" in prompt and request.schema_name == "CriteriaAnswer":
            raise ModelUnavailable("Connection refused by https://models.example/v1 after 10 s.")
        return await answer(request)

    await site.work(script)
    made: dict[str, str] = {}
    for theme in (*ENGLISH, *JAPANESE):
        given = {**(INPUT if theme.isascii() else INPUT_JA), "theme": theme}
        made[theme] = await site.begin(given, max_retries=0)
    await site.pass_gates(made["home coffee brewing"], to=4)
    await site.pass_gates(made["在宅勤務の休み方"], to=4)
    await site.pass_gates(made["a first sourdough"], to=5)
    await site.pass_gates(made["はじめての家庭菜園"], to=5)
    await site.until(made["indoor plants that survive"])
    await site.sessions.approve(made["indoor plants that survive"], actor="Mika")
    await site.until(made["indoor plants that survive"], "FAILED")
    await site.until(made["古い団地のリノベーション"])
    await site.until(made["winter cycling for beginners"])
    sketch = made["learning to sketch at lunch"]
    await site.pass_gates(sketch, to=2)
    await site.sessions.approve(sketch, actor="Mika", comment="Good angle. Keep the second one.")
    old = await site.begin({**INPUT, "theme": "last year's summer postcards"})
    await site.sessions.cancel(old, actor="Mika")
    await site.sessions.archive.put_one(old, actor="Mika")
    await asyncio.sleep(4)  # what ended three seconds ago is counted
    await site.sessions.metrics.roll_up()
    return {
        "gate": made["home coffee brewing"],
        "gate-ja": made["在宅勤務の休み方"],
        "trends": made["winter cycling for beginners"],
        "failed": made["indoor plants that survive"],
        "running": sketch,
        "done": made["a first sourdough"],
    }


async def shoot(
    browser: Browser, address: str, made: dict[str, str], site: Site, only: str
) -> None:
    """Take every picture."""
    task = (await site.sessions.tasks(made["failed"]))[-1].id
    gate, failed = f"/sessions/{made['gate']}", f"/sessions/{made['failed']}"
    pages = {
        "sessions": "/",
        "inbox": "/inbox",
        "archived": "/?archived=1",
        "new": "/new/viral",
        "drafts": "/drafts",
        "monitoring": "/monitoring",
        "settings": "/settings",
        "missing": "/sessions/nowhere",
        "login": made["login"],
        "gate": gate,
        "gate-trends": f"/sessions/{made['trends']}",
        "edit": f"{gate}/edit?phase=4",
        "rerun": f"{gate}/rerun",
        "running": f"/sessions/{made['running']}",
        "failed": failed,
        "done": f"/sessions/{made['done']}",
        "task": f"{failed}/tasks/{task}",
        "replay": f"{failed}/replay",
    }
    for language in ("en", "ja"):
        shown = {**pages, "gate": f"/sessions/{made['gate' if language == 'en' else 'gate-ja']}"}
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                context = await browser.new_context(
                    viewport={"width": width, "height": 900 if width > 500 else 844},
                    color_scheme=scheme, locale=language, device_scale_factor=1,
                    reduced_motion="reduce",
                )  # fmt: skip
                page = await context.new_page()
                for name, path in shown.items():
                    label = f"{name}-{language}-{scheme}-{width}"
                    if only and only not in label:
                        continue
                    await page.goto(path if "://" in path else address + path)
                    await page.wait_for_timeout(250)
                    await page.screenshot(path=OUT / f"{label}.png", full_page=True)
                await context.close()


async def take(dsn: str, only: str) -> None:
    """Seed a database and take the pictures."""
    await migrate(dsn)
    async with open_site(dsn) as site, async_playwright() as playwright:
        address = await site.serve(tools=Commands(load_settings(), []))
        made = await seed(site)
        made["login"] = f"{await site.serve(api_key='the key of a picture')}/login"
        browser = await launch(playwright)
        await shoot(browser, address, made, site, only)
        await browser.close()


def main(only: str) -> None:
    if not CHROMIUM.exists():
        sys.exit("There is no chromium here. Install it with: apt-get install chromium")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    OUT.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="ekiden-shots-"))
    try:
        with EmbeddedServer(home, settings={"fsync": "off"}) as server:
            asyncio.run(take(server.dsn, only))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")

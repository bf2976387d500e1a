"""Debian's chromium, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Playwright

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP ekiden.test 127.0.0.1",  # elsewhere, as browsers see it
)  # fmt: skip

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="no chromium here: apt-get install chromium"
)


async def launch(playwright: Playwright) -> Browser:
    return await playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=list(_FLAGS),
        # Going back gives the page as it was left, as it does for everybody.
        ignore_default_args=["--disable-back-forward-cache"],
    )


async def opened(browser: Browser, **how: Any) -> tuple[Page, list[str]]:
    """Return a page, and what goes wrong on it: errors of scripts, and refusals of the policy."""
    context = await browser.new_context(locale="en", reduced_motion="reduce", **how)
    page = await context.new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    page.on("console", heard)
    return page, wrong

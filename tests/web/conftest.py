from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from playwright.async_api import Browser, async_playwright

from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings
from tests.api.relay import SilentDoorbell
from tests.web.browser import launch
from tests.web.site import Person, Site, open_site


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    async with open_site(database) as site:
        yield site


def person_of(site: Site, **settings: object) -> Person:
    """Somebody without scripts, at the app itself."""
    app = create_app(
        site.sessions,
        doorbell=SilentDoorbell(),
        settings=ApiSettings(**settings),  # type: ignore[arg-type]
    )
    return Person(
        transport=httpx2.ASGITransport(app), base_url="http://localhost", follow_redirects=True
    )


@pytest.fixture
async def person(site: Site) -> AsyncIterator[Person]:
    async with person_of(site) as person:
        yield person


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()

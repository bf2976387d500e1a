from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.store.helpers import Relay, open_relay


@pytest_asyncio.fixture
async def relay(database: str) -> AsyncIterator[Relay]:
    async with open_relay(database) as relay:
        yield relay

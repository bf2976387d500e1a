from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.worker.relay import House, open_house


@pytest_asyncio.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with open_house(database) as house:
        yield house

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from ekiden.store.connection import open_pool
from ekiden.store.documents import Documents


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[Documents]:
    async with open_pool(database) as pool:
        yield Documents(pool, database)

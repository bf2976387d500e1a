from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from ekiden.store.connection import open_pool
from ekiden.store.documents import Documents
from tests.search.server import Server


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database) as opened:
        yield opened


@pytest_asyncio.fixture
async def store(pool: asyncpg.Pool, database: str) -> Documents:
    return Documents(pool, database)


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Server]:
    told = Server()
    listener = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield told

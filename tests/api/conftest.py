from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from ekiden.api.app import Server, create_app
from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.doorbell import Doorbell
from ekiden.store.sessions import Sessions
from tests.api.relay import Relay, SilentDoorbell


@pytest.fixture
async def relay(database: str) -> AsyncIterator[Relay]:
    async with open_pool(database, size=8) as pool:
        relay = Relay(pool, database)
        await relay.open()
        yield relay


@asynccontextmanager
async def client_of(sessions: Sessions, settings: ApiSettings) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(sessions, doorbell=SilentDoorbell(), settings=settings)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(relay.sessions, ApiSettings()) as client:
        yield client


@pytest.fixture
async def with_key(relay: Relay) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(relay.sessions, ApiSettings(api_key="open sesame")) as client:
        yield client


Start = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def servers() -> list[Server]:
    """The servers that ``serve`` started, first one first."""
    return []


@pytest.fixture
async def serve(relay: Relay, database: str, servers: list[Server]) -> AsyncIterator[Start]:
    """Start a real server on a free port, with a real doorbell; returns a client of it."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> httpx2.AsyncClient:
            doorbell = await stack.enter_async_context(Doorbell(lambda: database))
            taken = ApiSettings(port=0, **settings)
            server = Server(create_app(relay.sessions, doorbell=doorbell, settings=taken), taken)
            servers.append(server)
            running = asyncio.create_task(server.serve())

            async def stop() -> None:
                server.should_exit = True
                await running

            stack.push_async_callback(stop)
            while not server.started:
                assert not running.done()
                await asyncio.sleep(0.01)
            await asyncio.wait_for(doorbell.connected.wait(), 10)
            address = f"http://127.0.0.1:{server.bound_port}"
            limits = httpx2.Limits(max_connections=100)
            return await stack.enter_async_context(
                httpx2.AsyncClient(base_url=address, timeout=30, limits=limits)
            )

        yield start


@pytest.fixture
def base() -> str:
    return "/api/demo/cot-session"

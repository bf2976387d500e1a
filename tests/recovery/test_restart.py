"""The database goes away and comes back, gently or not; workers and API go on by themselves."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import httpx2
import pytest

from ekiden.api.app import Server, create_app
from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.doorbell import Doorbell
from ekiden.store.embedded import EmbeddedServer
from ekiden.store.sessions import Sessions
from tests.cli.program import children_of, command_of, until
from tests.recovery.conftest import Start
from tests.recovery.load import (
    Heard,
    all_completed,
    begin,
    eventually,
    some_are_done,
    squares,
)
from tests.worker.relay import open_house, working

HOWS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill -9": signal.SIGKILL}


def end(server: EmbeddedServer, how: str) -> None:
    process = server._process
    assert process is not None
    sessions = children_of(process.pid)
    process.send_signal(HOWS[how])
    process.wait(20)
    # After kill -9 they answer on until they see that their parent is gone.
    until(lambda: not any(map(command_of, sessions)))


@pytest.mark.parametrize("how", HOWS)
async def test_a_worker_goes_on_when_the_database_is_back(
    start: Start, heard: Heard, how: str
) -> None:
    server = start()
    async with open_house(server.dsn) as house, working(server.dsn, squares(), capacity=8):
        sessions = await begin(house)
        await some_are_done(house)
        end(server, how)
        await heard.until("database_lost", 5)
        server.ensure()
        await all_completed(house, sessions)
    assert heard.count("database_back") >= 1
    assert heard.count("attempt_failed") == 0


@pytest.mark.parametrize("how", HOWS)
async def test_the_api_answers_503_meanwhile_and_goes_on_by_itself(start: Start, how: str) -> None:
    server = start()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(server.dsn))
        doorbell = await stack.enter_async_context(Doorbell(lambda: server.dsn))
        settings = ApiSettings(port=0)
        app = create_app(Sessions(pool, server.dsn), doorbell=doorbell, settings=settings)
        api = Server(app, settings)
        running = asyncio.create_task(api.serve())

        async def stop() -> None:
            api.should_exit = True
            await running

        stack.push_async_callback(stop)
        await eventually(lambda: api.started, "the API")
        client = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.bound_port}", timeout=30)
        )
        assert (await client.get("/api/flows")).status_code == 200
        end(server, how)
        for path in ("/api/flows", "/api/sums/cot-session", "/readyz"):
            answer = await client.get(path)
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:ekiden:problem:database-unreachable"
        assert (await client.get("/healthz")).status_code == 200
        server.ensure()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/api/flows")).status_code == 200
        async with asyncio.timeout(20):
            await doorbell.connected.wait()

"""What only shows over a real socket: many at once, framing, and a database that is away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator

import httpx2
import pytest

from ekiden.api.settings import ApiSettings
from ekiden.store.connection import open_pool
from ekiden.store.sessions import Sessions
from tests.api.conftest import Start, client_of
from tests.api.relay import Relay

JSON = {"Content-Type": "application/json"}


async def created(client: httpx2.AsyncClient, **body: object) -> str:
    answer = await client.post("/api/demo/cot-session/create", json={"theme": "tea", **body})
    return str(answer.json()["sessionId"])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one decision"}])
async def test_64_clicks_at_once_pass_a_gate_once(
    relay: Relay, serve: Start, base: str, headers: dict[str, str]
):
    client = await serve()
    session_id = await created(client, start=True)
    await relay.run_phase(session_id)
    url = f"{base}/{session_id}/proceed-next-phase"
    answers = await asyncio.gather(*(client.post(url, headers=headers) for _ in range(64)))
    statuses = Counter(a.status_code for a in answers)
    assert statuses == ({200: 64} if headers else {200: 1, 409: 63})
    assert await relay.pool.fetchval("SELECT count(*) FROM ekiden.reviews") == 1
    assert await relay.pool.fetchval("SELECT count(*) FROM ekiden.api_tasks WHERE phase = 2") == 1


async def test_64_starts_at_once_start_once(relay: Relay, serve: Start, base: str):
    client = await serve()
    url = f"{base}/{await created(client)}/process-async"
    answers = await asyncio.gather(*(client.post(url) for _ in range(64)))
    assert {a.status_code for a in answers} == {202}
    assert sum(a.json()["started"] for a in answers) == 1


async def chunks(size: int) -> AsyncIterator[bytes]:
    yield b'{"theme": "'
    for _ in range(size // 1000):
        yield b"x" * 1000
    yield b'"}'


async def test_a_body_that_is_too_large_is_refused_however_it_is_framed(serve: Start, base: str):
    client = await serve(max_body=10_000)
    url = f"{base}/create"
    for content in (b"x" * 10_001, chunks(10_000)):
        answer = await client.post(url, content=content, headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:ekiden:problem:too-large"
        assert answer.headers["connection"] == "close"
    fits = await client.post(url, content=chunks(9_000), headers=JSON)
    assert fits.status_code == 422  # read, and found too long for a theme
    assert (await client.post(url, json={"theme": "tea"})).status_code == 201


async def test_a_length_that_lies_beyond_all_bounds_is_refused_unread(serve: Start, base: str):
    client = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(
        f"POST {base}/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {10**17}\r\n\r\n".encode()
    )
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"413"
    assert b"connection: close" in (await asyncio.wait_for(reader.read(), 10)).lower()
    writer.close()


async def test_a_result_may_be_larger_than_other_bodies(relay: Relay, serve: Start, base: str):
    client = await serve(max_body=1000, max_result=2_000_000)
    session_id = await created(client, start=True)
    task = await relay.claim(session_id)
    body = {"taskId": task.id, "attempt": task.attempt, "result": {"text": "x" * 1_000_000}}
    url = f"{base}/{session_id}/continue-async"
    assert (await client.post(url, json=body)).status_code == 200
    body["result"] = "x" * 2_000_000
    assert (await client.post(url, json=body)).status_code == 413


async def test_a_client_that_leaves_in_the_middle_of_its_body_changes_nothing(
    relay: Relay, serve: Start, base: str
):
    client = await serve()
    _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(
        f"POST {base}/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n".encode()
        + b'{"theme": "tea"}'
    )
    await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert (await client.get(base)).json()["sessions"] == []


async def test_without_a_database_the_process_is_up_but_not_ready(closed_port: int):
    dsn = f"postgresql://someone:s3cret@127.0.0.1:{closed_port}/ekiden"
    async with open_pool(dsn) as pool, client_of(Sessions(pool, dsn), ApiSettings()) as client:
        assert (await client.get("/healthz")).status_code == 200
        for path in ("/readyz", "/api/flows", "/api/workers", "/api/demo/cot-session"):
            answer = await client.get(path)
            assert answer.status_code == 503, path
            assert answer.json()["type"] == "urn:ekiden:problem:database-unreachable"
            assert f"127.0.0.1:{closed_port}" in answer.json()["detail"]
            assert answer.headers["retry-after"]
            assert "s3cret" not in answer.text
            assert "someone" not in answer.text


async def test_what_the_database_says_stays_in_the_log(relay: Relay, client: httpx2.AsyncClient):
    await relay.pool.execute("ALTER TABLE ekiden.workers RENAME TO gone")
    answer = await client.get("/api/workers")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "workers" not in answer.json()["detail"]


async def test_an_error_nobody_foresaw_is_a_problem_too(
    relay: Relay, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    async def crash() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(relay.sessions, "workers", crash)
    answer = await client.get("/api/workers")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:ekiden:problem:internal"
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"]


async def test_a_value_the_checks_let_through_is_a_refusal_not_a_crash(
    relay: Relay, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    async def unchecked() -> None:
        await relay.sessions.pause("0198c0de-0000-7000-8000-000000000000", actor="\0")

    monkeypatch.setattr(relay.sessions, "workers", unchecked)
    assert (await client.get("/api/workers")).status_code == 422

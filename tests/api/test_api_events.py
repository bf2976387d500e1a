"""Server-sent events, over a real socket and with a real doorbell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest

from ekiden.api.app import Server
from ekiden.api.settings import ApiSettings
from ekiden.api.sse import Watchers
from ekiden.core.model import Error
from ekiden.errors import DatabaseUnreachable
from ekiden.store.sessions import Sessions
from tests.api.conftest import Start
from tests.api.relay import Relay

PATIENCE = 10


async def blocks(answer: httpx2.Response) -> AsyncIterator[dict[str, str]]:
    """Yield what the stream sends, block by block; a comment is the field ''."""
    block: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            block[name.rstrip(":")] = value
        else:
            yield block
            block = {}


async def events(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for block in blocks(answer):
        if "id" in block:
            data = orjson.loads(block["data"])
            assert (block["id"], block["event"]) == (str(data["id"]), data["type"])
            yield data


async def next_type(stream: AsyncIterator[dict[str, Any]]) -> str:
    return str((await asyncio.wait_for(anext(stream), PATIENCE))["type"])


async def created(client: httpx2.AsyncClient, **body: object) -> str:
    answer = await client.post("/api/demo/cot-session/create", json={"theme": "tea", **body})
    return str(answer.json()["sessionId"])


async def test_a_stream_gives_the_backlog_then_what_happens_and_ends_with_the_session(
    relay: Relay, serve: Start, base: str
):
    # The sweep is far away: what arrives here was told by the doorbell.
    client = await serve(sweep=3600)
    session_id = await created(client)
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        stream = events(answer)
        assert await next_type(stream) == "session_created"
        await client.post(f"{base}/{session_id}/process-async")
        assert await next_type(stream) == "step_started"
        await relay.run_phase(session_id)
        assert [await next_type(stream) for _ in range(3)] == [
            "task_completed",
            "task_completed",
            "gate_opened",
        ]
        await client.post(f"{base}/{session_id}/proceed-next-phase")
        assert await next_type(stream) == "gate_approved"
        await relay.run_phase(session_id)
        rest = await asyncio.wait_for(collect(stream), PATIENCE)
    assert [e["type"] for e in rest] == ["task_completed", "task_completed", "session_completed"]
    assert rest[0].keys() == {
        "id", "sessionId", "type", "phase", "step", "taskId", "data", "createdAt",
    }  # fmt: skip


async def test_a_stream_goes_on_while_the_session_may_be_taken_up_again(
    relay: Relay, serve: Start, base: str
):
    client = await serve()
    session_id = await created(client)
    await client.post(f"{base}/{session_id}/process-async")
    task = await relay.claim(session_id)
    assert await relay.tasks.fail(task, Error(kind="X", message="no", retryable=False))
    for verb in ("archive", "resume"):
        assert (await client.post(f"{base}/{session_id}/{verb}")).status_code == 200
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        stream = events(answer)
        while await next_type(stream) != "session_resumed":
            pass  # past "session_archived"
        await client.post(f"{base}/{session_id}/cancel")
        left = [e["type"] for e in await asyncio.wait_for(collect(stream), PATIENCE)]
        assert left[-1] == "session_cancelled"


async def collect(stream: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in stream]


async def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(
    serve: Start, base: str
):
    client = await serve()
    session_id = await created(client)
    url = f"{base}/{session_id}/events"
    for verb in ("pause", "resume", "pause", "cancel"):
        await client.post(f"{base}/{session_id}/{verb}")
    async with client.stream("GET", url) as answer:
        whole = await asyncio.wait_for(collect(events(answer)), PATIENCE)
    assert len(whole) == 5
    for position, event in enumerate(whole[:-1]):
        for how in (
            {"headers": {"Last-Event-ID": str(event["id"])}, "params": {"after": "0"}},
            {"params": {"after": str(event["id"])}},
        ):
            async with client.stream("GET", url, **how) as answer:
                rest = await asyncio.wait_for(collect(events(answer)), PATIENCE)
            assert rest == whole[position + 1 :]
    # A browser connects again when a stream ends; 204 tells it that there is nothing more.
    over = await client.get(url, headers={"Last-Event-ID": str(whole[-1]["id"])})
    assert over.status_code == 204
    for wrong in ("x", "-1", str(2**63), "1.5"):
        answer = await client.get(url, headers={"Last-Event-ID": wrong})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


async def test_a_long_backlog_arrives_whole(relay: Relay, serve: Start, base: str):
    client = await serve()
    session_id = await created(client)
    await relay.pool.execute(
        "INSERT INTO ekiden.events (session_id, type) SELECT $1, 'noted' "
        "FROM generate_series(1, 1200)",
        session_id,
    )
    await client.post(f"{base}/{session_id}/cancel")
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        whole = await asyncio.wait_for(collect(events(answer)), PATIENCE)
    assert len(whole) == 1202
    assert [e["id"] for e in whole] == sorted(e["id"] for e in whole)


async def test_a_silent_stream_says_that_it_is_alive(serve: Start, base: str):
    client = await serve(heartbeat=0.05)
    session_id = await created(client)
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        stream = blocks(answer)
        signs = 0
        while signs < 3:
            block = await asyncio.wait_for(anext(stream), PATIENCE)
            signs += block == {"event": "alive", "data": "{}"}


async def test_a_change_that_no_bell_told_of_is_seen_by_the_sweep(
    relay: Relay, serve: Start, base: str
):
    client = await serve(sweep=0.1)
    session_id = await created(client)
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        stream = events(answer)
        assert await next_type(stream) == "session_created"
        async with relay.pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
            await connection.execute(
                "INSERT INTO ekiden.events (session_id, type) VALUES ($1, 'unheard')", session_id
            )
        assert await next_type(stream) == "unheard"


async def test_a_stream_outlives_the_loss_of_every_connection(
    relay: Relay, serve: Start, base: str
):
    client = await serve(sweep=3600, poll=3600)
    session_id = await created(client)
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        stream = events(answer)
        assert await next_type(stream) == "session_created"
        async with relay.pool.acquire() as killer:
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await killer.execute(
                "INSERT INTO ekiden.events (session_id, type) VALUES ($1, 'unheard')", session_id
            )
        # Nobody listened when it rang: the doorbell's new connection says to look at everything.
        assert await next_type(stream) == "unheard"


async def test_one_stream_too_many_is_refused(serve: Start, base: str):
    client = await serve(max_streams=1)
    url = f"{base}/{await created(client)}/events"
    async with client.stream("GET", url) as answer:
        stream = events(answer)
        assert await next_type(stream) == "session_created"
        refused = await client.get(url)
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:ekiden:problem:too-many-streams"


async def test_a_reader_that_left_makes_room(serve: Start, base: str):
    client = await serve(max_streams=1)
    url = f"{base}/{await created(client)}/events"
    for _ in range(3):
        async with asyncio.timeout(PATIENCE):
            while True:  # the server learns of it a moment after we leave
                async with client.stream("GET", url) as answer:
                    if answer.status_code == 200:
                        assert await next_type(events(answer)) == "session_created"
                        break
                await asyncio.sleep(0.01)


async def test_the_server_stops_while_streams_are_open(
    serve: Start, servers: list[Server], base: str
):
    client = await serve()
    url = f"{base}/{await created(client)}/events"
    async with client.stream("GET", url) as answer:
        stream = events(answer)
        assert await next_type(stream) == "session_created"
        servers[0].should_exit = True
        assert await asyncio.wait_for(collect(stream), PATIENCE) == []


async def test_a_database_that_is_away_does_not_end_a_stream(
    relay: Relay, serve: Start, base: str, monkeypatch: Any
):
    client = await serve(sweep=0.05, poll=0.05)
    session_id = await created(client)
    answering = relay.sessions.events
    refusals = 0

    async def away_twice(*args: Any, **kwargs: Any) -> Any:
        nonlocal refusals
        refusals += 1
        if refusals <= 2:
            raise DatabaseUnreachable
        return await answering(*args, **kwargs)

    monkeypatch.setattr(relay.sessions, "events", away_twice)
    async with client.stream("GET", f"{base}/{session_id}/events") as answer:
        assert await next_type(events(answer)) == "session_created"
    assert refusals >= 3


async def test_a_change_is_read_once_however_many_watch(
    serve: Start, base: str, monkeypatch: pytest.MonkeyPatch
):
    client = await serve(sweep=3600)
    session_id = await created(client)
    reads = 0
    read = Sessions.events

    async def counting(self: Sessions, *args: Any, **how: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(self, *args, **how)

    monkeypatch.setattr(Sessions, "events", counting)
    watching = 30
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(watching):
            answer = client.stream("GET", f"{base}/{session_id}/events")
            streams.append(events(await stack.enter_async_context(answer)))
        for stream in streams:
            assert await next_type(stream) == "session_created"
        reads = 0
        await client.post(f"{base}/{session_id}/cancel")
        for stream in streams:
            assert [e["type"] for e in await asyncio.wait_for(collect(stream), PATIENCE)] == [
                "session_cancelled"
            ]
    assert 1 <= reads <= watching / 5


async def test_an_answer_from_before_a_ring_is_nobody_elses():
    watchers = Watchers(_Silent(), ApiSettings())
    answered = asyncio.Event()
    asked = []

    async def question() -> int:
        asked.append(len(asked))
        mine = asked[-1]
        await answered.wait()
        if mine == 2:
            raise DatabaseUnreachable
        return mine

    def ask() -> asyncio.Task[int]:
        return asyncio.create_task(watchers.ask("s", "what", question))

    with watchers.watch("s"):
        first, leaves = ask(), ask()
        watchers._ring("another")
        same = ask()
        await asyncio.sleep(0)
        watchers._ring("s")
        later = ask()
        await asyncio.sleep(0)
        watchers._ring("s")
        broken = [ask(), ask()]
        await asyncio.sleep(0)
        leaves.cancel()
        answered.set()
        assert [await first, await same, await later] == [0, 0, 1]
        for task in broken:
            with pytest.raises(DatabaseUnreachable):
                await task
        assert leaves.cancelled()
    assert watchers._asked == {}


class _Silent:
    """A doorbell that nobody rings."""

    listening = True

    def subscribe(self, channel: str) -> Any:
        raise AssertionError("nobody listens in this test")

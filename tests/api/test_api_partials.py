"""What running calls say: seen while they run, and with their attempt afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson

from ekiden.core.model import ClaimedTask, Error
from ekiden.core.records import Partial
from tests.api.conftest import Start
from tests.api.relay import Relay
from tests.api.test_api_events import PATIENCE, blocks, created

ERROR = Error(kind="ModelUnavailable", message="cut", retryable=True)


async def say(relay: Relay, task: ClaimedTask, seq: int, text: str, *, call: int = 1) -> None:
    piece = Partial(
        session_id=task.session_id, task_id=task.id, attempt=task.attempt, call=call, seq=seq,
        text=text,
    )  # fmt: skip
    await relay.sessions.partials.append([piece])


async def running(relay: Relay, client: httpx2.AsyncClient) -> ClaimedTask:
    session_id = await created(client)
    await client.post(f"/api/demo/cot-session/{session_id}/process-async")
    return await relay.claim(session_id)


async def pieces(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of the ``partial`` events, and see that they have no id."""
    async for block in blocks(answer):
        if block.get("event") == "partial":
            assert "id" not in block
            yield orjson.loads(block["data"])


async def hear(stream: AsyncIterator[dict[str, Any]], count: int) -> list[tuple[Any, ...]]:
    heard = [await asyncio.wait_for(anext(stream), PATIENCE) for _ in range(count)]
    return [(p["taskId"], p["attempt"], p["call"], p["seq"], p["text"]) for p in heard]


async def test_attempts_show_what_their_calls_said_while_they_run_and_after_they_ended(
    relay: Relay, client: httpx2.AsyncClient, base: str
):
    task = await running(relay, client)
    url = f"{base}/{task.session_id}/tasks/{task.id}/attempts"
    for seq, text in enumerate(("half of ", "an answer"), 1):
        await say(relay, task, seq, text)
    said = [{"call": 1, "text": "half of an answer", "chunks": 2}]
    assert [a["partials"] for a in (await client.get(url)).json()["attempts"]] == [said]
    await relay.tasks.fail(task, ERROR)
    await client.post(f"{base}/{task.session_id}/resume")
    again = await relay.claim(task.session_id)
    await say(relay, again, 1, "once more", call=2)
    attempts = (await client.get(url)).json()["attempts"]
    assert [(a["outcome"], a["partials"]) for a in attempts] == [
        ("FAILED", said),
        ("RUNNING", [{"call": 2, "text": "once more", "chunks": 1}]),
    ]


async def test_a_stream_tells_what_was_said_and_then_each_piece_as_it_comes(
    relay: Relay, serve: Start, base: str
):
    # The sweep is far away: what arrives here was told by the doorbell.
    client = await serve(sweep=3600)
    task = await running(relay, client)
    await say(relay, task, 1, "駅")
    async with client.stream("GET", f"{base}/{task.session_id}/events") as answer:
        stream = pieces(answer)
        assert await hear(stream, 1) == [(task.id, 1, 1, 1, "駅")]
        await say(relay, task, 2, "伝")
        assert await hear(stream, 1) == [(task.id, 1, 1, 2, "伝")]
        await say(relay, task, 1, "beside", call=2)
        await say(relay, task, 3, "!")
        assert sorted(await hear(stream, 2)) == [
            (task.id, 1, 1, 3, "!"), (task.id, 1, 2, 1, "beside"),
        ]  # fmt: skip


async def test_a_reader_that_comes_back_gets_the_running_attempt_from_its_first_piece(
    relay: Relay, serve: Start, base: str
):
    client = await serve()
    task = await running(relay, client)
    for seq in (1, 2):
        await say(relay, task, seq, f"piece {seq}")
    url = f"{base}/{task.session_id}/events"
    last = 0
    async with client.stream("GET", url) as answer:
        async for block in blocks(answer):
            last = int(block.get("id", last))
            if block.get("event") == "partial" and "piece 2" in block["data"]:
                break
    # The pieces left Last-Event-ID where it was, so events go on and pieces begin anew.
    async with client.stream("GET", url, headers={"Last-Event-ID": str(last)}) as answer:
        stream = blocks(answer)
        first: dict[str, str] = {}
        while "data" not in first:
            first = await asyncio.wait_for(anext(stream), PATIENCE)
        assert (first["event"], orjson.loads(first["data"])["seq"]) == ("partial", 1)


async def test_the_last_piece_of_a_broken_attempt_is_told_and_the_next_attempt_apart(
    relay: Relay, serve: Start, base: str
):
    client = await serve()
    task = await running(relay, client)
    await say(relay, task, 1, "broke")
    async with client.stream("GET", f"{base}/{task.session_id}/events") as answer:
        stream = pieces(answer)
        assert await hear(stream, 1) == [(task.id, 1, 1, 1, "broke")]
        async with relay.pool.acquire() as connection, connection.transaction():
            # Both at once: no look falls in between.
            await connection.execute(
                "INSERT INTO ekiden.partials (session_id, task_id, attempt, call, seq, text)"
                " VALUES ($1, $2, 1, 1, 2, ' off')",
                task.session_id, task.id,
            )  # fmt: skip
            await connection.execute(
                "UPDATE ekiden.api_tasks SET status = 'QUEUED', queued = true WHERE id = $1",
                task.id,
            )
        assert await hear(stream, 1) == [(task.id, 1, 1, 2, " off")]
        again = await relay.claim(task.session_id)
        await say(relay, again, 1, "anew")
        assert await hear(stream, 1) == [(task.id, 2, 1, 1, "anew")]


async def test_the_document_of_the_api_says_what_a_piece_is(client: httpx2.AsyncClient):
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["PartialShown"]["properties"]) == {
        "taskId", "attempt", "call", "seq", "text",
    }  # fmt: skip

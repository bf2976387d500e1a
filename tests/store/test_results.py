"""What a result may hold, and what the bell tells of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.store.helpers import Relay, advance, second

PAYLOAD_LIMIT = 8000  # a NOTIFY of as many bytes aborts its transaction


class Listener:
    """What a plain connection hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self.heard.put_nowait(str(payload))

    async def next(self) -> str:
        return await asyncio.wait_for(self.heard.get(), 20)


@pytest_asyncio.fixture
async def listening(relay: Relay) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(relay.dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_whoever_listens_hears_task_session_and_result_of_a_completion(
    relay: Relay, listening: asyncpg.Connection
):
    listener = Listener()
    await listening.add_listener("task_completed", listener)
    task = await relay.started()
    await relay.complete(advance(task, result='{"posts": ["駅伝 🏃"]}'))
    assert json.loads(await listener.next()) == {
        "taskId": task.id,
        "sessionId": task.session_id,
        "result": {"posts": ["駅伝 🏃"]},
    }


async def test_nothing_but_a_completion_rings_task_completed(
    relay: Relay, listening: asyncpg.Connection
):
    listener = Listener()
    await listening.add_listener("task_completed", listener)
    task = await relay.started()
    await relay.tasks.release(task)
    (task,) = await relay.claim()
    await relay.sessions.cancel(task.session_id, actor="me")
    last = await relay.started()
    await relay.complete(advance(last))
    assert json.loads(await listener.next())["taskId"] == last.id


async def test_siblings_of_one_commit_are_heard_one_by_one(
    relay: Relay, listening: asyncpg.Connection
):
    siblings = await relay.executing(3)
    listener = Listener()
    await listening.add_listener("task_completed", listener)
    await relay.complete(*(advance(t) for t in siblings))
    heard = {json.loads(await listener.next())["taskId"] for _ in siblings}
    assert heard == {t.id for t in siblings}


@pytest.mark.parametrize("letter", ["a", "é", "駅", "🏃"])
async def test_no_result_of_any_size_reaches_the_limit_of_a_payload(
    relay: Relay, listening: asyncpg.Connection, letter: str
):
    listener = Listener()
    await listening.add_listener("task_completed", listener)
    width = len(letter.encode())
    around = {limit // width + near for limit in (4000, PAYLOAD_LIMIT) for near in range(-3, 2)}
    told = {}
    for length in sorted({0, 1, *around}):
        task = await relay.started()
        result = json.dumps(letter * length, ensure_ascii=False)
        await relay.complete(advance(task, result=result))
        payload = await listener.next()
        assert len(payload.encode()) < PAYLOAD_LIMIT
        assert json.loads(payload)["sessionId"] == task.session_id
        assert await relay.task(task.id, "result::text") == result
        told[len(result.encode())] = "result" in json.loads(payload)
    assert told == {size: size <= 4000 for size in told}
    assert set(told.values()) == {True, False}


async def test_a_result_of_five_megabytes_is_stored_and_its_ring_leaves_it_out(
    relay: Relay, listening: asyncpg.Connection
):
    listener = Listener()
    await listening.add_listener("task_completed", listener)
    task = await relay.started()
    result = json.dumps("駅" * (5 * 2**20 // 3), ensure_ascii=False)
    (following,) = await relay.complete(advance(task, result=result))
    assert json.loads(await listener.next()) == {
        "taskId": task.id,
        "sessionId": task.session_id,
    }
    assert await relay.task(task.id, "result::text") == result
    assert following.step == "EXECUTE"


@pytest.mark.parametrize(
    "result",
    [
        '"NUL \\u0000 inside"',
        '"lone \\ud83d surrogate"',
        '"🏃 beyond the basic plane"',
        '{"a": 1, "a": 2}',
        "null",
        '""',
        "0",
        "[]",
        "1e999",
        ' {"kept":  "as it came" } ',
    ],
)
async def test_a_result_is_stored_as_it_came(relay: Relay, result: str):
    task = await relay.started()
    (following,) = await relay.complete(advance(task, result=result))
    assert await relay.task(task.id, "status, result::text") == ("COMPLETED", result)
    loaded = await relay.tasks.load_sessions([task.session_id])
    assert loaded[task.session_id].plan == result
    assert following.step == "EXECUTE"


@pytest.mark.parametrize("result", ["", "NaN", "{", "'text'", '"a\nb"'])
async def test_what_is_no_json_is_refused_and_leaves_the_task_running(relay: Relay, result: str):
    task = await relay.started()
    with pytest.raises(asyncpg.DataError):
        await relay.complete(advance(task, result=result))
    assert await relay.task(task.id) == "RUNNING"
    await relay.complete(advance(task))


async def test_a_commit_of_256_sessions_names_each_to_whoever_watches_sessions(
    relay: Relay, listening: asyncpg.Connection
):
    tasks = [await relay.started() for _ in range(256)]
    listener = Listener()
    await listening.add_listener("session_changed", listener)
    await relay.complete(*(advance(t) for t in tasks))
    missing = {t.session_id for t in tasks}
    while missing:
        payload = await listener.next()
        assert len(payload.encode()) < PAYLOAD_LIMIT
        named = payload.split(",")
        assert set(named) <= missing
        missing.difference_update(named)


async def test_queued_tasks_ring_once_a_statement_and_handed_on_ones_never(
    relay: Relay, listening: asyncpg.Connection
):
    task = await relay.started()
    heard = Listener()
    await listening.add_listener("task_queued", heard)
    (execute,) = await relay.complete(advance(task))  # handed on: nobody else is needed
    last = await relay.complete(advance(execute))
    assert [t.step for t in last] == ["INTEGRATE"]
    async with second(relay.dsn) as marking:
        await marking.execute("SELECT pg_notify('task_queued', 'mark')")
        assert await heard.next() == "mark"
        (think,) = await relay.claim(await relay.session())
        assert await heard.next() == ""
        await relay.handoff.complete(relay.worker, [advance(think, items=9, room=2)])
        assert await heard.next() == ""
        await marking.execute("SELECT pg_notify('task_queued', 'mark')")
        assert await heard.next() == "mark"

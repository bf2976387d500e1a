"""Partial results: appended in order, kept with their attempt, followed without gaps."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ekiden.core.model import ClaimedTask
from ekiden.core.records import Partial
from ekiden.store.partials import BATCH, CallKey
from ekiden.store.queries import sql
from tests.store.helpers import ERROR, Relay, second


def chunk(task: ClaimedTask, seq: int, text: str, *, call: int = 1, attempt: int = 1) -> Partial:
    return Partial(
        session_id=task.session_id, task_id=task.id, attempt=attempt, call=call, seq=seq, text=text
    )


async def read(relay: Relay, session_id: str, seen: dict[CallKey, int]) -> list[str]:
    """Follow to the end, as a reader does, and return the texts."""
    texts = []
    while True:
        look = await relay.sessions.partials.follow(session_id, seen)
        for piece in look.chunks:
            assert piece.seq == seen.get((piece.task_id, piece.attempt, piece.call), 0) + 1
            seen[piece.task_id, piece.attempt, piece.call] = piece.seq
            texts.append(piece.text)
        if look.complete:
            return texts


async def test_the_text_of_each_call_is_its_chunks_in_order_and_stays_with_its_attempt(
    relay: Relay,
):
    task = await relay.started()
    partials = relay.sessions.partials
    await partials.append(
        [chunk(task, 2, "kiden"), chunk(task, 1, "E"), chunk(task, 1, "x", call=2)]
    )
    await relay.tasks.fail(task, ERROR)
    assert [(p.attempt, p.call, p.text, p.chunks) for p in await partials.texts(
        task.session_id, task.id
    )] == [(1, 1, "Ekiden", 2), (1, 2, "x", 1)]  # fmt: skip
    other = await relay.session()
    assert await partials.texts(other, task.id) == []


async def test_a_chunk_that_is_sent_twice_is_there_once(relay: Relay):
    task = await relay.started()
    for _ in range(2):
        await relay.sessions.partials.append([chunk(task, 1, "once")])
    (text,) = await relay.sessions.partials.texts(task.session_id, task.id)
    assert (text.text, text.chunks) == ("once", 1)


async def test_a_reader_gets_every_chunk_once_of_running_attempts(relay: Relay):
    one, two = await relay.executing(2)
    ended = await relay.started()
    await relay.sessions.partials.append([chunk(ended, 1, "another session's")])
    await relay.sessions.partials.append([chunk(one, 1, "a"), chunk(two, 1, "b")])
    seen: dict[CallKey, int] = {}
    assert await read(relay, one.session_id, seen) == ["a", "b"]
    await relay.sessions.partials.append([chunk(two, 2, "c"), chunk(two, 1, "d", call=2)])
    assert await read(relay, one.session_id, seen) == ["c", "d"]
    assert await read(relay, one.session_id, seen) == []


async def test_the_last_chunks_of_an_attempt_that_ended_reach_those_who_followed_it(relay: Relay):
    task = await relay.started()
    await relay.sessions.partials.append([chunk(task, 1, "first")])
    seen: dict[CallKey, int] = {}
    assert await read(relay, task.session_id, seen) == ["first"]
    await relay.sessions.partials.append([chunk(task, 2, "last")])
    await relay.tasks.fail(task, ERROR)
    look = await relay.sessions.partials.follow(task.session_id, seen)
    assert ([c.text for c in look.chunks], look.running) == (["last"], set())
    # Whoever comes now follows what runs, and nothing does.
    assert (await relay.sessions.partials.follow(task.session_id, {})).chunks == []


async def test_a_running_attempt_is_told_before_it_says_anything(relay: Relay):
    task = await relay.started()
    look = await relay.sessions.partials.follow(task.session_id, {})
    assert (look.chunks, look.running) == ([], {(task.id, 1)})


async def test_a_long_text_is_read_in_batches_without_gaps(relay: Relay):
    task = await relay.started()
    pieces = [str(n) for n in range(1, 2 * BATCH + 20)]
    await relay.sessions.partials.append([chunk(task, n, str(n)) for n in range(1, 2 * BATCH + 20)])
    assert await read(relay, task.session_id, {}) == pieces


async def test_more_running_attempts_than_a_batch_are_all_told(relay: Relay):
    tasks = await relay.executing(BATCH + 5)
    await relay.sessions.partials.append([chunk(tasks[-1], 1, "of the last")])
    look = await relay.sessions.partials.follow(tasks[0].session_id, {})
    assert ([c.text for c in look.chunks], look.complete) == (["of the last"], True)
    assert len(look.running) == BATCH + 5


async def test_following_a_session_reads_only_its_own_chunks(relay: Relay):
    """However much other sessions have said: no scan of the table."""
    task = await relay.started()
    await relay.connection.execute(
        "INSERT INTO ekiden.partials (session_id, task_id, attempt, call, seq, text)"
        " SELECT ekiden.new_session_id(), 1000 + n, 1, 1, 1, 'x' FROM generate_series(1, 20000) n"
    )
    await relay.connection.execute("ANALYZE ekiden.partials, ekiden.api_tasks")
    await relay.connection.execute("SET plan_cache_mode = force_generic_plan")
    plan = await relay.rows(
        f"EXPLAIN ANALYZE {sql('follow_partials')}", task.session_id, [], [], [], [], BATCH
    )
    assert not [line for (line,) in plan if "Seq Scan on partials" in line]


async def test_appending_rings_for_whoever_watches_the_session(relay: Relay):
    task = await relay.started()
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with second(relay.dsn) as listener:
        await listener.add_listener("session_changed", lambda *a: heard.put_nowait(str(a[-1])))
        await relay.sessions.partials.append([chunk(task, 1, "text")])
        assert await asyncio.wait_for(heard.get(), 5) == task.session_id


async def test_chunks_of_very_many_sessions_fit_the_bell(relay: Relay):
    """A NOTIFY of 8,000 bytes would abort the statement that stores the text."""
    ids = [row[0] for row in await relay.rows(
        "SELECT ekiden.new_session_id()::text FROM generate_series(1, 500)"
    )]  # fmt: skip
    await relay.sessions.partials.append(
        [Partial(session_id=i, task_id=n, attempt=1, call=1, seq=1, text="x")
         for n, i in enumerate(ids, 1)]
    )  # fmt: skip
    assert await relay.row("SELECT count(*) FROM ekiden.partials") == (500,)


@pytest.mark.parametrize(
    ("change", "invariant"),
    [("seq = 0", "partial_is_numbered_from_one"), ("text = ''", "partial_is_not_empty")],
)
async def test_a_chunk_is_numbered_from_one_and_says_something(
    relay: Relay, change: str, invariant: str
):
    task = await relay.started()
    await relay.sessions.partials.append([chunk(task, 1, "text")])
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await relay.connection.execute(f"UPDATE ekiden.partials SET {change}")
    assert caught.value.constraint_name == invariant

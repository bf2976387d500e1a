"""What is deleted is nobody's any more: not a fork's, and of what failed what was put away."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import pytest

from ekiden.errors import NotFound
from ekiden.store.prune import Pruned, count_prunable, prune
from ekiden.store.queries import sql
from ekiden.store.reviews import Reviews
from tests.store.helpers import ERROR, Relay, advance, finish, second, someone_waits

NOTHING = Pruned(sessions=0, tasks=0)
_FIRST = "00000000-0000-0000-0000-000000000000"


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


class One:
    """A pool of one connection, so that a transaction on it can be kept open."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    def acquire(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        return nullcontext(self._connection)


async def completed(relay: Relay) -> str:
    """Make a session that has gone through both phases."""
    session = await relay.at_gate()
    await relay.sessions.approve(session, actor="ann")
    (think,) = await relay.claim(session)
    (integrate,) = await relay.complete(advance(think))
    await relay.complete(finish(integrate))
    return session


async def shared(relay: Relay, session: str) -> list[Any]:
    return [revision.output for revision in await relay.sessions.revisions(session)]


async def test_who_is_forked_at_this_moment_stays(relay: Relay):
    parent = await completed(relay)
    async with second(relay.dsn) as connection:
        forking = Reviews(cast("asyncpg.Pool", One(connection)), relay.dsn)
        async with connection.transaction(isolation="read_committed"):
            fork, _ = await forking.fork(parent, phase=1, actor="ann")
            assert await prune(relay.pool, relay.dsn, before=tomorrow()) == NOTHING
    assert await shared(relay, fork) == ["output"]


async def test_who_was_forked_before_the_lock_was_ours_stays(relay: Relay):
    parent = await completed(relay)
    async with second(relay.dsn) as connection, connection.transaction():
        locked = await connection.fetch(sql("lock_prunable"), tomorrow(), 10, _FIRST)
        assert [str(row["id"]) for row in locked] == [parent]
        # The snapshot of the first statement may be older than a fork that was done when it locked.
        fork = await relay.pool.fetchval(sql("fork_session"), parent, 1, None, "ann", False, None)
        row = await connection.fetchrow(sql("prune_sessions"), [parent])
        assert tuple(row) == (0, 0)
    assert await shared(relay, fork) == ["output"]


async def test_who_is_gone_is_not_forked(relay: Relay):
    parent = await completed(relay)
    async with second(relay.dsn) as connection:
        async with connection.transaction():
            await connection.fetch(sql("lock_prunable"), tomorrow(), 10, _FIRST)
            await connection.fetchrow(sql("prune_sessions"), [parent])
            forking = asyncio.create_task(relay.sessions.reviews.fork(parent, phase=1, actor="ann"))
            await someone_waits(relay.connection)
        with pytest.raises(NotFound):
            await forking


async def test_batches_go_on_past_those_that_stay(relay: Relay):
    sessions = [await completed(relay) for _ in range(5)]
    fork, _ = await relay.sessions.reviews.fork(sessions[1], phase=1, actor="ann")
    gone = await prune(relay.pool, relay.dsn, before=tomorrow(), batch=1)
    assert gone.sessions == 4
    left = await relay.rows("SELECT id::text FROM ekiden.sessions ORDER BY id")
    assert left == [(sessions[1],), (fork,)]


async def test_what_failed_goes_once_it_was_put_away_for_long_and_nothing_of_it_runs(relay: Relay):
    async def failed(*, siblings: int = 0) -> str:
        task, *_ = await relay.executing(1 + siblings)
        await relay.tasks.fail(task, ERROR)
        return task.session_id

    old, today, shown, at_work = [await failed(siblings=n) for n in (0, 0, 0, 1)]
    for session in (old, today, at_work):
        await relay.sessions.archive.put_one(session, actor="ann")
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET archived_at = now() - interval '91 days'"
        " WHERE id = ANY ($1::uuid[])",
        [old, at_work],
    )
    before = datetime.now(UTC) - timedelta(days=90)
    assert await count_prunable(relay.pool, relay.dsn, before=before) == 1
    assert (await prune(relay.pool, relay.dsn, before=before)).sessions == 1
    left = await relay.rows("SELECT id::text FROM ekiden.sessions")
    assert {session for (session,) in left} == {today, shown, at_work}

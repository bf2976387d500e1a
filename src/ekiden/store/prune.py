"""Retention: deletes sessions that nobody comes back to, a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql

_BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was deleted."""

    sessions: int
    tasks: int


async def count_prunable(pool: asyncpg.Pool, dsn: str, *, before: datetime) -> int:
    """Return how many sessions ended, or failed and were archived, before this time."""
    with translated(dsn):
        count: int = await pool.fetchval(sql("prunable_sessions"), before)
    return count


async def prune(
    pool: asyncpg.Pool,
    dsn: str,
    *,
    before: datetime,
    batch: int = 200,
    progress: Callable[[Pruned], None] = lambda _: None,
) -> Pruned:
    """Delete the sessions that ended before a time, with tasks, calls, outputs, drafts and events.

    A FAILED one ended when it was archived, if nothing of it runs.
    Each batch is a transaction of its own: what was stopped half-way is right, and can be repeated.

    Args:
        pool: where.
        dsn: how to name the database in an error.
        before: the end of what goes.
        batch: sessions a transaction.
        progress: told after each batch what has been deleted so far.

    Raises:
        DatabaseError: the database refused, or is not there.
    """
    sessions = tasks = 0
    last = _BEFORE_ALL
    while True:
        with translated(dsn):
            async with (
                pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                locked = await connection.fetch(sql("lock_prunable"), before, batch, last)
                if not locked:
                    return Pruned(sessions=sessions, tasks=tasks)
                ids = [row["id"] for row in locked]
                row = await connection.fetchrow(sql("prune_sessions"), ids)
        assert row is not None  # it counts
        last = ids[-1]
        sessions += row["sessions"]
        tasks += row["tasks"]
        progress(Pruned(sessions=sessions, tasks=tasks))

"""Metrics: what was is rolled up now and then, what is now is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from ekiden.core.histogram import GROWTH
from ekiden.core.metrics import Fact, Piece, Width, Window
from ekiden.store.connection import APPLICATION, translated
from ekiden.store.queries import sql

MARGIN = timedelta(seconds=3)  # the youngest row that is counted
_GROWTH = math.log(GROWTH)
_EVER: Piece = (Width.EVER, datetime.min, datetime.max)  # asyncpg's words for -infinity, infinity
MEMORY = "32MB"  # of PostgreSQL, for a turn
AT_ONCE = timedelta(days=1)  # the longest time that one turn counts
# Twice the longest window that is summed from them, and a little.
KEEP_MINUTES = timedelta(hours=13)
KEEP_HOURS = timedelta(days=3)
KEEP_DAYS = timedelta(days=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The facts of a window, and how far it is counted."""

    facts: list[Fact]
    since: datetime
    until: datetime
    counted_to: datetime  # what ended since is not in the facts yet


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCount:
    """The workers in one state."""

    state: str
    n: int
    busy: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is now."""

    due: int  # tasks that wait to be claimed
    later: int  # tasks that are queued for later
    oldest_s: float | None  # how long the oldest due one has been due
    sessions: dict[str, int]  # those that have not ended, by status
    workers: list[WorkerCount]
    alerts: dict[str, int]  # those that are not over, by kind
    notify_queue_usage: float  # 0 to 1; at 1 no commit that notifies gets through
    oldest_snapshot_xids: int | None  # transactions that vacuum cannot clean up behind
    oldest_snapshot_s: float | None
    dead_tuples: int
    live_tuples: int
    connections: int
    max_connections: int


class Metrics:
    """The metrics of a database."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def roll_up(self, *, older_than: timedelta = timedelta()) -> bool:
        """Count what ended since the last time, and return whether more is left to count.

        Nothing happens when somebody else is at it, or has been within ``older_than``. A turn is
        one transaction; the statement that counts begins after the horizon is known, so whatever
        lies before that is in its snapshot.
        """
        with translated(self._dsn):
            mark = await self._pool.fetchrow(sql("metric_watermark"))
            assert mark is not None  # the migration wrote it
            if mark["now"] - mark["rolled_to"] < max(older_than, MARGIN):
                return False
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                turn = await connection.fetchrow(
                    sql("take_metric_turn"), MARGIN, APPLICATION, MEMORY
                )
                if turn is None or turn["horizon"] <= turn["rolled_to"]:
                    return False
                until = min(turn["horizon"], turn["rolled_to"] + AT_ONCE)
                await connection.execute(sql("roll_up"), turn["rolled_to"], until, _GROWTH)
                await connection.execute(
                    sql("end_metric_turn"), until, KEEP_MINUTES, KEEP_HOURS, KEEP_DAYS
                )
        return bool(until < turn["horizon"])

    async def add_commits(self, times: Mapping[int, tuple[int, float]]) -> None:
        """Add how long commits took: attempts and seconds, by bucket."""
        n, seconds = zip(*times.values(), strict=True)
        with translated(self._dsn):
            await self._pool.execute(sql("add_commits"), list(times), n, seconds)

    async def past(self, window: Window, flow: str | None = None, *, ago: int = 0) -> Past:
        """Return the facts of a window.

        Args:
            window: how long.
            flow: of one flow; None is all.
            ago: how many windows before the one that ends now.
        """
        with translated(self._dsn):
            mark = await self._pool.fetchrow(sql("metric_watermark"))
            assert mark is not None
            since = window.begin(mark["now"] - ago * window.length)
            until = mark["now"]
            if ago:
                until = window.begin(until - (ago - 1) * window.length)
            facts = await self._facts(window.pieces(since, until, open_end=not ago), flow)
        return Past(facts=facts, since=since, until=until, counted_to=mark["rolled_to"])

    async def ever(self) -> list[Fact]:
        """Return the facts since the database was made: they only grow."""
        with translated(self._dsn):
            return await self._facts([_EVER], None)

    async def present(self, flow: str | None = None) -> Present:
        """Return what is now; queue and sessions of one flow, or of all."""
        with translated(self._dsn):
            async with self._pool.acquire() as connection:
                queue = await connection.fetchrow(sql("queue_now"), flow)
                sessions = await connection.fetch(sql("open_sessions_now"), flow)
                workers = await connection.fetch(sql("workers_now"))
                alerts = await connection.fetch(sql("open_alerts_now"))
                database = await connection.fetchrow(sql("database_now"))
        assert queue is not None and database is not None  # aggregates
        return Present(
            **queue,
            **database,
            sessions={row["status"]: row["n"] for row in sessions},
            workers=[WorkerCount(**row) for row in workers],
            alerts={row["kind"]: row["n"] for row in alerts},
        )

    async def _facts(self, pieces: list[Piece], flow: str | None) -> list[Fact]:
        widths, since, until = zip(*pieces, strict=True)
        rows = await self._pool.fetch(sql("metric_facts"), widths, since, until, flow)
        return [Fact(**row) for row in rows]

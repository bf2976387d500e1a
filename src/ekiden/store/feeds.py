"""The feeds that are fetched by themselves. One method a query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql
from ekiden.store.words import storable

_LONGEST_ERROR = 500
_LONGEST_MARK = 1000  # characters of an ETag or a date; a longer one is not sent back


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One feed that is due."""

    source: str  # its address
    attempt: int
    etag: str | None
    last_modified: str | None
    failures: int  # in a row, so far


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLine:
    """One feed, as people are shown it."""

    source: str
    fetched_at: datetime | None  # when its server answered last
    available_at: datetime  # when it is fetched next
    failures: int
    error: str | None


class Feeds:
    """The table of feeds."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def add(self, source: str, again: timedelta) -> None:
        """Make a feed known that was fetched just now; it is due after ``again``."""
        with translated(self._dsn):
            await self._pool.fetch(sql("add_feed"), storable(source), again)

    async def claim(self, limit: int, hold: timedelta) -> list[Feed]:
        """Take due feeds; each is due again after ``hold`` unless it was ended."""
        with translated(self._dsn):
            return [Feed(**row) for row in await self._pool.fetch(sql("claim_feeds"), limit, hold)]

    async def next_due(self) -> float | None:
        """Return in how many seconds the nearest feed is due; None if there is none."""
        with translated(self._dsn):
            due: timedelta | None = await self._pool.fetchval(sql("next_feed"))
        return None if due is None else due.total_seconds()

    async def fetched(
        self, feed: Feed, *, again: timedelta, etag: str | None, last_modified: str | None
    ) -> None:
        """Note that the server answered, and what it wants to be asked with next time."""
        marks = (mark and storable(mark) for mark in (etag, last_modified))
        kept = (mark if mark and len(mark) <= _LONGEST_MARK else None for mark in marks)
        with translated(self._dsn):
            await self._pool.execute(sql("feed_fetched"), feed.source, feed.attempt, again, *kept)

    async def failed(self, feed: Feed, *, again: timedelta, error: str) -> None:
        """Note what went wrong."""
        told = storable(error)[:_LONGEST_ERROR]
        with translated(self._dsn):
            await self._pool.execute(sql("feed_failed"), feed.source, feed.attempt, again, told)

    async def lines(self) -> list[FeedLine]:
        """Return the feeds, with how the last look at each went."""
        with translated(self._dsn):
            return [FeedLine(**row) for row in await self._pool.fetch(sql("list_feeds"))]

"""Searches that were paid for today."""

from __future__ import annotations

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql
from ekiden.store.words import storable


class Searches:
    """What paid search engines found, by engine, question and day (UTC)."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def found(self, engine: str, asked: bytes) -> str | None:
        """Return what an engine found today, as it was kept; None: it was not asked."""
        with translated(self._dsn):
            found: str | None = await self._pool.fetchval(
                sql("found_today"), storable(engine), asked
            )
        return found

    async def keep(self, engine: str, asked: bytes, found: str) -> None:
        """Keep what an engine found today, and let go of what is older."""
        with translated(self._dsn):
            await self._pool.execute(sql("keep_search"), storable(engine), asked, storable(found))

"""Logins, over all API processes together: how often a key may be tried, and which have ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql

WINDOW = timedelta(minutes=15)
MOST_OF_ADDRESS = 10  # wrong keys from one address within the window
MOST_OF_ALL = 100  # and from all addresses: who has many does not guess for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A login that somebody tries."""

    id: int | None  # what ``forget`` takes; None: too many were tried, the key is not looked at
    wait: float  # seconds until there is room again


class Logins:
    """Counts logins before the key is looked at, and forgets those whose key was right."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn
        self._one = asyncio.Lock()  # who waits for the turn below holds a connection of the pool

    async def count(self, address: str) -> Tried:
        """Count a login that is tried, if there is room for one."""
        with translated(self._dsn):
            async with (
                self._one,
                self._pool.acquire() as connection,
                connection.transaction(),
            ):
                await connection.execute(sql("lock_logins"))
                row = await connection.fetchrow(
                    sql("count_login"), address, WINDOW, MOST_OF_ADDRESS, MOST_OF_ALL
                )
        assert row is not None
        return Tried(id=row["id"], wait=row["wait"] or 0.0)

    async def forget(self, tried: Tried) -> None:
        """Take back what was counted: the key was right."""
        with translated(self._dsn):
            await self._pool.execute(sql("forget_login"), tried.id)

    async def tell_logout(self, login: str) -> None:
        """Tell every API process that a login has ended."""
        with translated(self._dsn):
            await self._pool.execute(sql("tell_logout"), login)

"""The inside of one session, for whoever wants to know why."""

from __future__ import annotations

import asyncpg

from ekiden.core.records import Session
from ekiden.core.timing import CallTime, Lived, Moment, Run, Tried
from ekiden.store.connection import translated
from ekiden.store.queries import sql


class Inside:
    """What each attempt of a session did, said and took."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def lived(self, session: Session) -> Lived:
        """Return what the timing of a session is made of."""
        with translated(self._dsn):
            runs = await self._pool.fetch(sql("session_runs"), session.id)
            tried = await self._pool.fetch(sql("session_tried"), session.id)
            calls = await self._pool.fetch(sql("session_call_times"), session.id)
            moments = await self._pool.fetch(sql("session_moments"), session.id)
        return Lived(
            status=session.status,
            created_at=session.created_at,
            completed_at=session.completed_at,
            now=max([row["now"] for row in runs], default=session.updated_at),
            tried=[Tried(**row) for row in tried],
            calls=[CallTime(**row) for row in calls],
            moments=[Moment(**row) for row in moments],
            runs=[
                Run(phase=r["phase"], generation=r["generation"], started_at=r["started_at"])
                for r in runs
            ],
        )

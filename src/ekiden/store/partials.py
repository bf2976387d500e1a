"""The text of running calls, chunk by chunk: a worker appends, people follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from ekiden.core.records import Partial, PartialText
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql

BATCH = 200  # chunks that a reader is given at once

CallKey = tuple[int, int, int]  # task id, attempt, call


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What a reader of a session is told at one look."""

    chunks: list[Partial]  # by task, attempt, call and seq
    running: set[tuple[int, int]]  # (task id, attempt) of what may still say more
    complete: bool  # False: there is more to read at once


class Partials:
    """Everything about partial results."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def append(self, chunks: Sequence[Partial]) -> None:
        """Append chunks of any number of calls in one statement; a repeated one is no change."""
        columns = ("session_id", "task_id", "attempt", "call", "seq", "text")
        with translated(self._dsn):
            await self._pool.execute(
                sql("append_partials"), *([getattr(c, name) for c in chunks] for name in columns)
            )

    async def texts(self, session_id: str, task_id: int) -> list[PartialText]:
        """Return what each call of a task has said, all attempts."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("partial_texts"), parse_session_id(session_id), task_id
            )
        return [PartialText(**row) for row in rows]

    async def follow(self, session_id: str, seen: dict[CallKey, int]) -> Followed:
        """Return what a reader has not seen of the attempts that run, or whose chunks it has seen.

        Args:
            session_id: the session.
            seen: the last ``seq`` the reader has of each call.
        """
        columns = ([key[n] for key in seen] for n in range(3))
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("follow_partials"), session_id, *columns, list(seen.values()), BATCH
            )
        chunks = [
            Partial(
                session_id=session_id,
                task_id=row["task_id"],
                attempt=row["attempt"],
                call=row["call"],
                seq=row["seq"],
                text=row["text"],
            )
            for row in rows
            if row["seq"] is not None
        ]
        return Followed(
            chunks=sorted(chunks, key=lambda c: (c.task_id, c.attempt, c.call, c.seq)),
            running={(row["task_id"], row["attempt"]) for row in rows if row["seq"] is None},
            complete=len(chunks) < BATCH,
        )

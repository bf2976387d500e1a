"""The inside of one session, for whoever wants to know why."""

from __future__ import annotations

import asyncpg

from ekiden.core.attempt_diff import Asked
from ekiden.core.records import AttemptInside, CallInside, Session, TaskLine
from ekiden.core.timing import CallTime, Lived, Moment, Run, Tried
from ekiden.errors import NotFound
from ekiden.store.connection import translated
from ekiden.store.queries import sql
from ekiden.store.rows import decode, decoded

SHOWN = 64_000  # bytes of an answer that are shown as text; all of it is in ``answer``
COMPARED = 200_000  # bytes of a request or an answer that are compared


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

    async def task(self, session_id: str, task_id: int) -> TaskLine:
        """Return one task.

        Raises:
            NotFound: the session has no such task.
        """
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("get_task"), session_id, task_id)
        if row is None:
            raise NotFound(f"Session {session_id} has no task {task_id}.")
        return decode(TaskLine, row)

    async def attempts(self, session_id: str, task_id: int) -> dict[int, AttemptInside]:
        """Return where each attempt of a task ran and what it logged, by number."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("attempt_insides"), session_id, task_id)
        return {row["number"]: decode(AttemptInside, row) for row in rows}

    async def call(self, session_id: str, call_id: int) -> CallInside:
        """Return one call with its request and the first ``SHOWN`` bytes of its answer.

        Raises:
            NotFound: the session has no such call.
        """
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("get_call"), session_id, call_id, SHOWN)
        if row is None:
            raise NotFound(f"Session {session_id} has no call {call_id}.")
        fields = dict(row)
        cited = fields.pop("citations")
        # Not by ``decode``: what it takes for JSON, the request and the error, is none here.
        return CallInside(**fields, citations=None if cited is None else decoded(cited))

    async def answer(self, session_id: str, call_id: int) -> bytes:
        """Return the answer of a call, byte for byte.

        Raises:
            NotFound: the session has no such call, or it was not answered.
        """
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("call_answer"), session_id, call_id)
        if row is None:
            raise NotFound(f"Session {session_id} has no call {call_id}.")
        if row["answer"] is None:
            raise NotFound(f"Call {call_id} got no answer; its error says why.")
        return bytes(row["answer"])

    async def asked(
        self, session_id: str, task_id: int, attempts: tuple[int, int]
    ) -> dict[int, list[Asked]]:
        """Return the calls of two attempts of a task, by attempt, for a comparison."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("calls_of_attempts"), session_id, task_id, list(attempts), COMPARED
            )
        found: dict[int, list[Asked]] = {number: [] for number in attempts}
        for row in rows:
            fields = dict(row)
            found[fields.pop("attempt")].append(Asked(**fields))
        return found

"""Sessions into files and out of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import asyncpg

from ekiden.core.model import SessionState, TaskState
from ekiden.core.recording import PARTS, Rows, encoded
from ekiden.errors import Conflict, NotFound
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql

_BYTES = frozenset({"request", "answer"})

Ids = dict[int, int]  # new ones by old ones
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Recordings:
    """Takes sessions out of a database, and into it."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def take(self, session_id: str) -> Rows:
        """Return everything that a session is made of, as of one moment.

        Raises:
            NotFound: no such session.
        """
        rows: Rows = {}
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                for part in PARTS:
                    found = await connection.fetch(
                        sql(f"recorded_{part}"), parse_session_id(session_id)
                    )
                    rows[part] = [dict(row) for row in found]
        if not rows["session"]:
            raise NotFound(f"There is no session {session_id}.")
        for call in rows["calls"]:
            for name in _BYTES:
                call[name] = encoded(call[name])
        return rows

    async def put(self, rows: Rows) -> str:
        """Bring a recorded session into this database under its own id, and return that.

        It is at rest here until a person acts on it: what was queued is held.

        Raises:
            Conflict: it is here already, or it was running when it was recorded.
            DatabaseError: the recording does not fit the schema.
        """
        (session,) = rows["session"]
        running = [t for t in rows["tasks"] if t["status"] == TaskState.RUNNING]
        if session["status"] == SessionState.RUNNING or running:
            raise Conflict(
                "The session was running when it was recorded. Pause it there, or let it come to a "
                "gate or an end, and export it again."
            )
        with translated(self._dsn):
            async with self._pool.acquire() as connection, connection.transaction():
                await self._put(connection, rows)
        return str(session["id"])

    async def _put(self, connection: Connection, rows: Rows) -> None:
        (session,) = rows["session"]
        id_ = session["id"]
        flow = await connection.fetchval(sql("import_flow"), json.dumps(rows["flow"]))
        if await connection.fetchval(sql("import_session"), _json(rows["session"]), flow) is None:
            raise Conflict(f"Session {id_} is in this database already.")
        tasks = await self._ids(connection, "ekiden.api_tasks", rows["tasks"])
        workers = await self._ids(connection, "ekiden.workers", rows["workers"])
        revisions = await self._ids(connection, "ekiden.revisions", rows["revisions"])

        def new(part: str, **ids: Ids) -> str:
            return _json(rows[part], lambda row: {k: m.get(row[k]) for k, m in ids.items()})

        await connection.execute(sql("import_workers"), new("workers", id=workers))
        await connection.execute(sql("import_runs"), new("runs", previous=revisions), id_)
        await connection.execute(
            sql("import_tasks"), new("tasks", id=tasks, worker_id=workers), id_, flow
        )
        await connection.execute(
            sql("import_attempts"), new("attempts", task_id=tasks, worker_id=workers), id_
        )
        await connection.execute(sql("import_calls"), new("calls", task_id=tasks), id_)
        await connection.execute(
            sql("import_revisions"), new("revisions", id=revisions, task_id=tasks), id_
        )
        await connection.execute(sql("import_reviews"), new("reviews", revision_id=revisions), id_)
        await connection.execute(sql("import_events"), new("events", task_id=tasks), id_)
        await connection.execute(sql("import_drafts"), new("drafts"), id_)

    async def _ids(self, connection: Connection, table: str, rows: list[dict[str, Any]]) -> Ids:
        new = await connection.fetch(sql("new_ids"), table, len(rows))
        return {row["id"]: made["id"] for row, made in zip(rows, new, strict=True)}


def _json(
    rows: list[dict[str, Any]],
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda _row: {},
) -> str:
    return json.dumps([{**row, **change(row)} for row in rows])

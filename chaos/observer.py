"""An independent witness: writes down what was acknowledged, at the moment it was.

It hears each completion (the doorbell ``task_completed`` rings after its commit is durable), looks
at the whole table each time it connects, and looks at the ledger now and then. What it has seen
must be there at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import asyncpg

from ekiden.store.connection import UNREACHABLE

_EVERY = 0.1  # seconds between looks at the ledger
_BEHIND = 500  # ids are given before they are committed: how far back a look goes
_GONE = (*UNREACHABLE, asyncpg.PostgresError)


class Observer:
    """Watches one database from ``async with`` on."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.completed: dict[int, str] = {}  # task id -> hash of its result
        self.answers: dict[int, str] = {}  # ledger id -> hash of the raw answer
        self.connects = 0
        self._looks = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="observer")
        while not self.connects and not self._task.done():
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def looked(self) -> None:
        """Wait until it has looked once more."""
        async with self._looks:
            await self._looks.wait()

    async def missing(self, pool: asyncpg.Pool) -> tuple[list[int], list[int]]:
        """Return acknowledged tasks that are gone or changed, and ledger rows likewise."""
        completed, answers = dict(self.completed), dict(self.answers)  # it goes on watching
        rows = await pool.fetch(
            "SELECT id, result::text FROM ekiden.api_tasks"
            " WHERE status = 'COMPLETED' AND id = ANY ($1::bigint[])",
            list(completed),
        )
        there = {row["id"]: _hash(json.loads(row["result"])) for row in rows}
        tasks = [id_ for id_, seen in completed.items() if there.get(id_) != seen]
        rows = await pool.fetch(
            "SELECT id, answer FROM ekiden.calls WHERE id = ANY ($1::bigint[])", list(answers)
        )
        kept = {row["id"]: hashlib.sha256(row["answer"] or b"").hexdigest() for row in rows}
        return tasks, [id_ for id_, seen in answers.items() if kept.get(id_) != seen]

    async def _run(self) -> None:
        while True:
            with suppress(*_GONE):
                connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=10)
                try:
                    await self._watch(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(_EVERY)

    async def _watch(self, connection: asyncpg.Connection) -> None:
        unsized: set[int] = set()

        def hear(*arguments: Any) -> None:
            told = json.loads(arguments[3])
            if "result" in told:
                # The first result is the one that was acknowledged, whatever comes after.
                self.completed.setdefault(told["taskId"], _hash(told["result"]))
            else:
                unsized.add(told["taskId"])

        await connection.add_listener("task_completed", hear)
        await self._scan(connection, None)
        self.connects += 1
        last = 0
        while True:
            await asyncio.sleep(_EVERY)
            if unsized:
                await self._scan(connection, list(unsized))
                unsized.clear()
            rows = await connection.fetch(
                "SELECT id, answer FROM ekiden.calls WHERE id > $1", last - _BEHIND
            )
            for row in rows:
                last = max(last, row["id"])
                digest = hashlib.sha256(row["answer"] or b"").hexdigest()
                self.answers.setdefault(row["id"], digest)
            async with self._looks:
                self._looks.notify_all()

    async def _scan(self, connection: asyncpg.Connection, ids: list[int] | None) -> None:
        rows = await connection.fetch(
            "SELECT id, result::text FROM ekiden.api_tasks WHERE status = 'COMPLETED'"
            " AND ($1::bigint[] IS NULL OR id = ANY ($1))",
            ids,
        )
        for row in rows:
            self.completed.setdefault(row["id"], _hash(json.loads(row["result"])))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()

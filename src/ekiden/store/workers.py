"""Workers: hello, signs of life, goodbye; and the rescue of what dead ones held."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from ekiden.store.connection import translated
from ekiden.store.queries import sql


class Workers:
    """The table of workers, for a worker."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def register_flow(
        self,
        *,
        name: str,
        version: str,
        title: str,
        phases: list[dict[str, Any]],
        input_schema: dict[str, Any],
    ) -> int:
        """Make a flow known as its newest version and return its id."""
        with translated(self._dsn):
            return int(
                await self._pool.fetchval(
                    sql("register_flow"), name, version, title,
                    orjson.dumps(phases).decode(), orjson.dumps(input_schema).decode(),
                )
            )  # fmt: skip

    async def register(
        self, *, software: str, model: str, flow_ids: Sequence[int], capacity: int, lease: timedelta
    ) -> int:
        """Say hello and return this worker's id, new at every start."""
        with translated(self._dsn):
            return int(
                await self._pool.fetchval(
                    sql("register_worker"), socket.gethostname(), os.getpid(), software, model,
                    flow_ids, capacity, lease,
                )
            )  # fmt: skip

    async def renew(self, worker_id: int, *, lease: timedelta, busy: int, state: str) -> bool:
        """Give a sign of life; False when the worker was declared lost and must stop."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("renew_lease"), worker_id, lease, busy, state)
        return row is not None

    async def stop(self, worker_id: int) -> None:
        """Say goodbye."""
        with translated(self._dsn):
            await self._pool.execute(sql("stop_worker"), worker_id)

    async def dead(self) -> dict[int, bool]:
        """Return dead workers, and whether that is certain (lease over) or suspected."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("dead_workers"))
        return {row["id"]: row["certain"] for row in rows}

    async def rescue(self, worker_ids: Sequence[int], *, max_deaths: int) -> int:
        """Declare workers lost, queue what they held, and return how many tasks that were."""
        with translated(self._dsn):
            return len(await self._pool.fetch(sql("rescue_tasks"), worker_ids, max_deaths))

    async def ring(self) -> None:
        """Ring the bell of the queue."""
        with translated(self._dsn):
            await self._pool.execute(sql("ring"))


async def take_life_sign(connection: asyncpg.Connection, worker_id: int) -> bool:
    """Hold the worker's advisory lock on the listening connection; False behind a pooler."""
    return bool(await connection.fetchval(sql("take_life_sign"), worker_id))

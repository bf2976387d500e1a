"""Workers: hello, signs of life, goodbye; and the rescue of what dead ones held."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from ekiden.store.connection import translated
from ekiden.store.queries import sql

# FAILED sessions stay for good, so those that FAILED this long before a worker was last seen are
# not looked into for what it held. What runs there was claimed before its session FAILED, and an
# attempt ends within a day (WORKER_TIMEOUT). All but an item of a fan-out that waited on in the
# queue: nobody misses it before its session runs again, and then it is looked into.
LONGEST_AFTER_FAILURE = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker hears when it gives a sign of life."""

    alive: bool  # False: it was declared lost and holds nothing any more
    due: bool  # a task of its flows waits in the queue
    deaths: bool  # a peer seems to be dead
    neighbour: int | None  # the peer whose life sign it shall wait on
    cancelled: dict[int, int]  # attempts it runs whose tasks a person cancelled


class Workers:
    """The table of workers, for a worker, on a pool or on one connection."""

    def __init__(self, pool: asyncpg.Pool | asyncpg.Connection, dsn: str) -> None:
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
        output_schemas: Sequence[dict[str, Any]] = (),
    ) -> int:
        """Make a flow known as its newest version and return its id."""
        with translated(self._dsn):
            return int(
                await self._pool.fetchval(
                    sql("register_flow"), name, version, title,
                    orjson.dumps(phases).decode(), orjson.dumps(input_schema).decode(),
                    orjson.dumps(list(output_schemas)).decode(),
                )
            )  # fmt: skip

    async def register(
        self,
        *,
        software: str,
        model: str,
        flow_ids: Sequence[int],
        capacity: int,
        lease: timedelta,
        providers: Sequence[str] = (),
    ) -> int:
        """Say hello and return this worker's id, new at every start."""
        with translated(self._dsn):
            return int(
                await self._pool.fetchval(
                    sql("register_worker"), socket.gethostname(), os.getpid(), software, model,
                    flow_ids, capacity, lease, list(providers),
                )
            )  # fmt: skip

    async def beat(
        self,
        worker_id: int,
        *,
        lease: timedelta,
        busy: int,
        state: str,
        flow_ids: Sequence[int] = (),
        running: Mapping[int, int] | None = None,
    ) -> Beat:
        """Give a sign of life and hear what this worker should know.

        Args:
            worker_id: who.
            lease: how long its claims hold from now on without another sign.
            busy: how many tasks it runs.
            state: ALIVE or DRAINING.
            flow_ids: the flows it claims.
            running: the attempts it runs, their numbers by task id.
        """
        ids = list(running or ())
        numbers = list((running or {}).values())
        with translated(self._dsn):
            row = await self._pool.fetchrow(
                sql("heartbeat"), worker_id, lease, busy, state, list(flow_ids), ids, numbers
            )
        assert row is not None
        cancelled = {id_: (running or {})[id_] for id_ in row["cancelled"]}
        return Beat(
            alive=row["alive"], due=row["due"], deaths=row["deaths"],
            neighbour=row["neighbour"], cancelled=cancelled,
        )  # fmt: skip

    async def stop(self, worker_id: int) -> None:
        """Say goodbye."""
        with translated(self._dsn):
            await self._pool.execute(sql("stop_worker"), worker_id)

    async def dead(self) -> dict[int, bool]:
        """Return dead workers, and whether that is certain (lease over) or suspected."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("dead_workers"), LONGEST_AFTER_FAILURE)
        return {row["id"]: row["certain"] for row in rows}

    async def rescue(self, worker_ids: Sequence[int], *, max_deaths: int) -> int:
        """Declare workers lost, queue what they held, and return how many tasks that were."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("rescue_tasks"), worker_ids, max_deaths, LONGEST_AFTER_FAILURE
            )
        return len(rows)

    async def ring(self) -> None:
        """Ring the bell of the queue."""
        with translated(self._dsn):
            await self._pool.execute(sql("ring"))


async def take_life_sign(connection: asyncpg.Connection, worker_id: int) -> bool:
    """Hold the worker's advisory lock on this connection; False when another one holds it."""
    return bool(await connection.fetchval(sql("take_life_sign"), worker_id))


async def wait_for_death(connection: asyncpg.Connection, worker_id: int) -> bool:
    """Wait on a peer's life sign; True when it is gone, False after the lock_timeout.

    Being gone is a suspicion: a worker that is connecting again has none for a moment.
    """
    try:
        await connection.execute(sql("wait_for_death"), worker_id)
    except asyncpg.LockNotAvailableError:
        return False
    await connection.execute(sql("let_go_of_life_sign"), worker_id)
    return True

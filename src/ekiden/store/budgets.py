"""Budgets: a call is reserved before it is made, and people see what is gone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg

from ekiden.core.budget import Spent, exceeded
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.ledger import Call
from ekiden.store.queries import sql


class Budgets:
    """The budgets of sessions that have one."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def reserve(
        self, call: Call, *, phase: int, cost_usd: Decimal | None, tokens: int
    ) -> dict[str, Any] | None:
        """Reserve what a call may cost; return why it may not be made, or None once it may.

        One after the other under the budgets' locks, whoever asks: a fan-out over many workers
        keeps to them together.
        """
        with translated(self._dsn):
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(sql("lock_budgets"), call.session_id)
                rows = await connection.fetch(
                    sql("spent"), call.session_id, phase, call.task_id, call.attempt, call.number
                )
                stop = exceeded(
                    [Spent(**row) for row in rows],
                    model=f"{call.provider}:{call.model}",
                    cost_usd=cost_usd,
                    tokens=tokens,
                )
                if stop is None:
                    await connection.execute(
                        sql("reserve"), call.session_id, call.task_id, call.attempt, call.number,
                        phase, cost_usd, tokens,
                    )  # fmt: skip
        return stop

    async def of(self, session_id: str) -> list[Spent]:
        """Return the budgets of a session, its own before those of its phases."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("spent"), parse_session_id(session_id), None, None, None, None
            )
        return [Spent(**row) for row in rows]

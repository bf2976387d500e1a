"""The ledger: every call, raw bytes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql


@dataclass(slots=True, kw_only=True)
class Call:
    """One call as it came back."""

    session_id: str
    task_id: int
    attempt: int
    number: int  # within the attempt, from 1
    kind: str  # "ask" or "search"
    provider: str
    model: str
    request_hash: bytes  # SHA-256 of ``request``
    request: bytes  # JSON
    answer: bytes | None = None  # raw
    content_type: str | None = None
    http_status: int | None = None
    outcome: str = "ANSWERED"
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None
    took: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidAnswer:
    """A usable answer that an earlier attempt of the task has paid for."""

    kind: str
    request_hash: bytes
    answer: bytes
    content_type: str
    http_status: int


class Ledger:
    """The ledger, for a worker."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def append(self, calls: Sequence[Call]) -> None:
        """Append calls in one statement."""
        columns = (
            "session_id", "task_id", "attempt", "number", "kind", "provider", "model",
            "request_hash", "request", "answer", "content_type", "http_status", "outcome", "error",
            "input_tokens", "output_tokens", "cost_usd", "took",
        )  # fmt: skip
        with translated(self._dsn):
            await self._pool.execute(
                sql("append_calls"), *([getattr(c, name) for c in calls] for name in columns)
            )

    async def settle(self, call: Call) -> None:
        """Record what became of an answer once it was read."""
        with translated(self._dsn):
            await self._pool.execute(
                sql("settle_call"), call.session_id, call.task_id, call.attempt, call.number,
                call.outcome, call.error, call.input_tokens, call.output_tokens, call.cost_usd,
            )  # fmt: skip

    async def answers_of(self, session_id: str, task_id: int) -> list[PaidAnswer]:
        """Return the usable answers a task already has, oldest first."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("answers_of"), session_id, task_id)
        return [
            PaidAnswer(
                kind=row["kind"],
                request_hash=row["request_hash"],
                answer=row["answer"],
                content_type=row["content_type"] or "",
                http_status=row["http_status"] or 200,
            )
            for row in rows
        ]

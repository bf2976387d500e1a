"""The ledger: every call, raw bytes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.partials import Partials
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
    http_status: int | None = None  # 0: it was sent, and the head of no answer came
    outcome: str = "ANSWERED"
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None
    price_version: str | None = None  # where the price is from
    finish_reason: str | None = None  # "stop", "length", ...
    citations: str | None = None  # JSON: what the provider says it read
    request_id: str | None = None  # the provider's own
    first_token: timedelta | None = None  # until the first text came; None: not streamed
    took: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the attempt stands that is about to make a call."""

    held: bool  # it still has its task
    budgeted: bool  # its session has a budget: what the call may cost is reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidAnswer:
    """An answer that an earlier attempt of the task has paid for."""

    id: int
    attempt: int
    number: int
    provider: str
    model: str
    answer: bytes
    content_type: str
    http_status: int
    unread: bool  # its worker died before it could note tokens and cost


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedCall:
    """A call whose answer the provider keeps under an id."""

    attempt: int
    number: int
    model: str
    answer_id: str
    age: timedelta  # since it was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class CutCall:
    """A call whose answer broke off, and what it had said."""

    attempt: int
    number: int
    answer_id: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedAnswer:
    """An answer that its provider may still be making, and that nobody waits for."""

    task_id: int
    attempt: int
    number: int
    provider: str
    model: str
    answer_id: str


# What every call has from the moment that it is asked.
_ASKED = (
    "session_id", "task_id", "attempt", "number", "kind", "provider", "model", "request_hash",
)  # fmt: skip


class Ledger:
    """The ledger, for a worker."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn
        self.partials = Partials(pool, dsn)

    async def append(self, calls: Sequence[Call]) -> None:
        """Append calls in one statement; one that is there already is no change."""
        columns = (
            *_ASKED, "request", "answer", "content_type", "http_status", "outcome", "error",
            "input_tokens", "output_tokens", "cost_usd", "took", "request_id", "first_token",
            "price_version",
        )  # fmt: skip
        with translated(self._dsn):
            await self._pool.execute(sql("append_calls"), *_arrays(calls, columns))

    async def are_payable(self, calls: Sequence[Call]) -> list[Standing]:
        """Return, in their order, how each call's attempt stands."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("are_payable"), *_arrays(calls, ("task_id", "attempt"))
            )
        return [Standing(**row) for row in rows]

    async def settle(self, calls: Sequence[Call]) -> None:
        """Record what became of answers once they were read, in one statement."""
        columns = (
            "session_id", "task_id", "attempt", "number", "outcome", "error", "input_tokens",
            "output_tokens", "cost_usd", "price_version", "finish_reason", "citations",
        )  # fmt: skip
        with translated(self._dsn):
            await self._pool.execute(sql("settle_calls"), *_arrays(calls, columns))

    async def start(self, started: Sequence[tuple[Call, str]]) -> None:
        """Note under which ids a provider keeps the answers of calls, in one statement."""
        calls = [call for call, _ in started]
        with translated(self._dsn):
            await self._pool.execute(
                sql("append_started_calls"), *_arrays(calls, _ASKED), [id_ for _, id_ in started]
            )

    async def next_cut(self, call: Call, taken: Sequence[str]) -> CutCall | None:
        """Return the newest call of earlier attempts that asked the same and was cut."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(
                sql("next_cut_call"), call.session_id, call.task_id, call.attempt, call.kind,
                call.request_hash, call.provider, call.model, taken,
            )  # fmt: skip
        return None if row is None else CutCall(**row)

    async def who_has_model(self, task_id: int, provider: str) -> tuple[bool, timedelta]:
        """Return whether a living worker can ask a provider for a task, and how long it waits."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("who_has_model"), task_id, provider)
        return (False, timedelta(0)) if row is None else (row["has_worker"], row["waited"])

    async def unwanted(self) -> list[UnwantedAnswer]:
        """Return what providers may still be making for tasks that are over."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("unwanted_answers"))
        return [UnwantedAnswer(**row) for row in rows]

    async def note_withdrawn(self, answer: UnwantedAnswer) -> None:
        """Note that the provider was told."""
        with translated(self._dsn):
            await self._pool.execute(
                sql("note_withdrawn"), answer.task_id, answer.attempt, answer.number
            )

    async def next_paid(self, call: Call, taken: Sequence[int]) -> PaidAnswer | None:
        """Return the oldest answer earlier attempts have to this call's request, but ``taken``."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(
                sql("next_paid_answer"), call.session_id, call.task_id, call.attempt, call.kind,
                call.request_hash, taken,
            )  # fmt: skip
        return None if row is None else _paid(row)

    async def useless(self, call: Call) -> list[PaidAnswer]:
        """Return what earlier attempts were answered to this request that was of no use."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("useless_answers"), call.session_id, call.task_id, call.attempt, call.kind,
                call.request_hash,
            )  # fmt: skip
        return [_paid(row) for row in rows]

    async def next_started(self, call: Call, tried: Sequence[str]) -> StartedCall | None:
        """Return the oldest call of earlier attempts that asked the same and has no answer here."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(
                sql("next_started_call"), call.session_id, call.task_id, call.attempt, call.kind,
                call.request_hash, call.provider, tried,
            )  # fmt: skip
        return None if row is None else StartedCall(**row)


def _paid(row: asyncpg.Record) -> PaidAnswer:
    return PaidAnswer(
        id=row["id"],
        attempt=row["attempt"],
        number=row["number"],
        provider=row["provider"],
        model=row["model"],
        answer=row["answer"],
        content_type=row["content_type"] or "",
        http_status=row["http_status"] or 200,
        unread=row["unread"],
    )


def _arrays(calls: Sequence[Call], columns: Sequence[str]) -> list[list[Any]]:
    """Return each column's values over all calls, as ``unnest`` takes them."""
    return [[getattr(call, name) for call in calls] for name in columns]

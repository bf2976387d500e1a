"""What is owed outside, and whom to tell. One method a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from ekiden.core.gates import GateEnd
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.decisions import approve_unasked
from ekiden.store.queries import sql
from ekiden.store.words import storable

# What a webhook may be told of.
EVENTS = (
    "session.waiting", "session.budget", "session.completed", "session.failed",
    "alert.raised", "alert.resolved",
)  # fmt: skip
_DEADLINE = "deadline"  # who approves or cancels when nobody did in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One thing that is due."""

    id: int
    kind: str  # webhook, reminder or deadline
    session_id: str | None  # None: it is of an alert
    alert_id: int | None
    event: str  # what is told; for a deadline what then happens
    event_id: int | None
    attempt: int
    created_at: datetime
    url: str | None  # of the webhook; None when it was stopped meanwhile
    secret: str | None
    receiver: int  # the webhook; 0: a gate


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookLine:
    """Somebody who is told."""

    id: int
    url: str
    events: list[str]
    created_at: datetime
    stopped_at: datetime | None
    delivered: int
    waiting: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """One delivery, with how its last try went."""

    id: int
    session_id: str | None
    alert_id: int | None
    event: str
    status: str
    attempt: int
    url: str
    created_at: datetime
    finished_at: datetime | None
    http_status: int | None
    error: str | None
    took: timedelta | None
    at: datetime | None


class Errands:
    """The table of errands, and of webhooks."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def claim(self, places: int, under_way: Sequence[int], hold: timedelta) -> list[Errand]:
        """Take due errands.

        Args:
            places: how many of one receiver may be under way.
            under_way: the receiver of each that is.
            hold: when each is due again, unless it was ended.
        """
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("claim_errands"), places, under_way, hold)
        return [Errand(**row) for row in rows]

    async def next_due(self, places: int, under_way: Sequence[int]) -> float | None:
        """Return in how many seconds the nearest that has a place is due; None if there is none."""
        with translated(self._dsn):
            due: timedelta | None = await self._pool.fetchval(sql("next_errand"), places, under_way)
        return None if due is None else due.total_seconds()

    async def end(
        self,
        errand: Errand,
        status: str,
        *,
        again: timedelta = timedelta(),
        http_status: int | None = None,
        error: str | None = None,
        took: timedelta = timedelta(),
    ) -> None:
        """Note what became of an attempt: DONE, FAILED, VOID, or QUEUED to try ``again``."""
        with translated(self._dsn):
            await self._pool.execute(
                sql("end_errand"), errand.id, errand.attempt, status, again, http_status,
                None if error is None else storable(error)[:2000], took,
            )  # fmt: skip

    async def remind(self, errand: Errand) -> bool:
        """Tell of a gate again; False when it is not open any more."""
        with translated(self._dsn):
            return await self._pool.fetchval(sql("remind_of_gate"), errand.id) is not None

    async def end_gate(self, errand: Errand) -> bool:
        """Let a gate end as its flow says; False when it is not open any more.

        It is looked at and ended under the session's lock: nobody decides in between.
        """
        assert errand.session_id is not None  # only a webhook can be of an alert
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                await connection.execute(sql("lock_session"), errand.session_id)
                is_open: bool = await connection.fetchval(sql("gate_is_open"), errand.id)
                if is_open and errand.event == GateEnd.CANCEL:
                    await connection.execute(sql("cancel_session"), errand.session_id, _DEADLINE)
                elif is_open:
                    await approve_unasked(connection, errand.session_id, _DEADLINE)
        return is_open

    async def add_webhook(self, url: str, secret: str, events: Sequence[str]) -> int:
        """Tell this address of these events from now on; return the webhook's id."""
        with translated(self._dsn):
            return int(await self._pool.fetchval(sql("add_webhook"), url, secret, list(events)))

    async def webhooks(self) -> list[WebhookLine]:
        """Return who is told, and how that went."""
        with translated(self._dsn):
            return [WebhookLine(**r) for r in await self._pool.fetch(sql("list_webhooks"))]

    async def stop_webhook(self, webhook_id: int) -> bool:
        """Tell somebody no more; False when there is no such webhook, or it was stopped."""
        with translated(self._dsn):
            return await self._pool.fetchval(sql("stop_webhook"), webhook_id) is not None

    async def deliveries(
        self, session_id: str | None = None, *, limit: int = 50
    ) -> list[DeliveryLine]:
        """Return the newest deliveries, of one session or all."""
        only = parse_session_id(session_id) if session_id else None
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("list_deliveries"), only, limit)
        return [DeliveryLine(**row) for row in rows]

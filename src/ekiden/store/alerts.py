"""Alerts: read what is, raise what begins, resolve what is over; one process at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from ekiden.core.alerts import (
    COUNTED,
    EASE,
    ENOUGH,
    LOOK_BACK,
    Alert,
    AlertKind,
    Limits,
    Reading,
    decide,
)
from ekiden.core.metrics import WRONG
from ekiden.errors import NotFound
from ekiden.store.connection import translated
from ekiden.store.queries import sql

KEEP = timedelta(days=400)  # alerts that are over, as long as the days of metrics
_MOST = 1000  # readings of a kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look did."""

    raised: list[Reading] = field(default_factory=list)
    resolved: list[Alert] = field(default_factory=list)
    open: int = 0  # alerts that are not over


class Alerts:
    """The table of alerts."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def look(self, limits: Limits, *, older_than: timedelta = timedelta()) -> Looked | None:
        """Raise what begins and resolve what is over; one transaction.

        Returns:
            None where there was nothing to do: somebody looked within ``older_than``, or nobody is
            told of alerts and none is open.
        """
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                turn = await connection.fetchrow(sql("take_alert_turn"), older_than)
                if turn is None:
                    return None
                open_ = [
                    Alert(**row) for row in await connection.fetch(sql("list_alerts"), True, _MOST)
                ]
                readings = await _read(connection, limits) if turn["wanted"] else []
                unread = await _unread(connection, limits) if turn["wanted"] else []
                begun, over = decide(readings, open_, limits, unread=unread)
                raised = [r for r in begun if await _raise(connection, r, limits)]
                for alert in over:
                    await connection.fetchval(sql("resolve_alert"), alert.id)
                await connection.execute(sql("end_alert_turn"), KEEP)
        return Looked(raised=raised, resolved=over, open=len(open_) + len(raised) - len(over))

    async def list(self, *, only_open: bool, limit: int = 100) -> list[Alert]:
        """Return the newest alerts."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("list_alerts"), only_open, limit)
        return [Alert(**row) for row in rows]

    async def get(self, alert_id: int) -> Alert:
        """Return one alert.

        Raises:
            NotFound: there is none of this number.
        """
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("get_alert"), alert_id)
        if row is None:
            raise NotFound(f"There is no alert {alert_id}.")
        return Alert(**row)


async def _read(connection: PoolConnectionProxy, limits: Limits) -> Sequence[Reading]:
    """Return the readings of every kind that has a limit."""
    found: list[Reading] = []
    if limits.error_rate:
        for row in await connection.fetch(sql("read_error_rates"), LOOK_BACK, list(WRONG)):
            found.append(
                Reading(
                    kind=AlertKind.ERROR_RATE, subject=row["flow"], flow=row["flow"],
                    value=row["wrong"] / row["attempts"], trusted=row["attempts"] >= ENOUGH,
                )
            )  # fmt: skip
    if limits.queue_age:
        age = await connection.fetchval(sql("read_queue_age"))
        if age is not None:
            found.append(Reading(kind=AlertKind.QUEUE_AGE, value=age))
    if limits.stuck_session:
        still = timedelta(seconds=limits.stuck_session * EASE)
        for row in await connection.fetch(sql("read_still_sessions"), still, _MOST):
            found.append(
                Reading(
                    kind=AlertKind.STUCK_SESSION, subject=row["session_id"], value=row["seconds"],
                    flow=row["flow"], session_id=row["session_id"], phase=row["phase"],
                    step=row["step"],
                )
            )  # fmt: skip
    if limits.budget:
        for row in await connection.fetch(sql("read_budgets"), limits.budget * EASE, _MOST):
            found.append(
                Reading(
                    kind=AlertKind.BUDGET, subject=f"{row['session_id']} {row['phase']}",
                    value=row["share"], flow=row["flow"], session_id=row["session_id"],
                    phase=row["phase"] or None,
                )
            )  # fmt: skip
    if limits.workers_lost and (
        lost := await connection.fetchval(sql("read_lost_workers"), LOOK_BACK)
    ):
        found.append(Reading(kind=AlertKind.WORKERS_LOST, value=lost))
    return found


async def _unread(connection: PoolConnectionProxy, limits: Limits) -> Sequence[AlertKind]:
    """Return the kinds of which the readings are not of all that was."""
    held_up = limits.error_rate and await connection.fetchval(
        sql("read_uncounted"), LOOK_BACK, COUNTED
    )
    return [AlertKind.ERROR_RATE] if held_up else []


async def _raise(connection: PoolConnectionProxy, reading: Reading, limits: Limits) -> bool:
    return (
        await connection.fetchval(
            sql("raise_alert"), reading.kind, reading.subject, reading.flow, reading.session_id,
            reading.phase, reading.step, reading.value, limits.of(reading.kind),
        )
        is not None
    )  # fmt: skip

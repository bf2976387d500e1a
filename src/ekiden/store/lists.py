"""Lists of sessions as the pages show them, and what a new one may be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql
from ekiden.store.reader import Reader, fields_of

MOST_WAITING = 100  # sessions that the inbox shows: those that have waited longest


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session in a list."""

    id: str
    flow: str
    flow_title: str
    flow_phases: list[dict[str, Any]]
    status: str
    phase: int
    step: str
    title: str
    held: bool  # tasks of it wait for process-async
    stop: str | None  # why it paused by itself: budget, items
    cost_usd: Decimal | None  # as far as prices are known
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    archived_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowHistory:
    """What the newest completed sessions of a flow took."""

    sessions: int
    priced: int  # of them, those whose every price is known
    least: Decimal | None  # USD, of those; the most, and the one in the middle
    cost: Decimal | None
    most: Decimal | None
    quickest: float | None  # seconds, without what people took
    seconds: float | None  # the median
    slowest: float | None


class Lists(Reader):
    """Lists of sessions. Session ids are text; NotFound for one that is none."""

    async def sessions(
        self,
        *,
        flow: str | None = None,
        statuses: Sequence[str] = (),
        words: str = "",
        after: str | None = None,
        archived: bool = False,
        limit: int = 50,
    ) -> list[SessionRow]:
        """Return sessions, newest first.

        Args:
            flow: only this one's.
            statuses: only these; empty for all.
            words: in the title, next to each other as here, in any case.
            after: start after this id.
            archived: those that are put away, and no others.
            limit: at most so many.
        """
        asked = (
            flow, list(statuses) or None, words or None, parse_session_id(after) if after else None,
            limit, archived, words.lower() != words.upper(),
        )  # fmt: skip
        with translated(self._dsn):
            async with self._pool.acquire() as connection, connection.transaction():
                # One plan for every question would read whole rows from the newest to the oldest.
                await connection.execute(sql("plan_anew"))
                rows = await connection.fetch(sql("page_sessions"), *asked)
        return [SessionRow(**fields_of(row)) for row in rows]

    async def waiting(self) -> list[SessionRow]:
        """Return what waits for a person, longest first."""
        return [SessionRow(**row) for row in await self._rows("page_waiting", MOST_WAITING)]

    async def waiting_count(self, most: int = 100) -> int:
        """Return how many sessions are at a gate or failed, counting no further than ``most``."""
        (row,) = await self._rows("page_waiting_count", most)
        return int(row["count"])

    async def flow_history(self, flow: str, newest: int = 20) -> FlowHistory:
        """Return what the newest completed sessions of a flow took."""
        (row,) = await self._rows("page_flow_history", flow, newest)
        return FlowHistory(**row)

    async def models(self, newest: int = 300) -> list[str]:
        """Return ``provider:model`` of those that answer now, or did lately."""
        return [row["name"] for row in await self._rows("page_models", newest)]

"""What the pages show, read as they need it: little, bounded, in few round trips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import asyncpg

from ekiden.errors import Conflict, NotFound
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql

MOST_TASKS = 1000  # tasks of one session that a page shows
MOST_CALLS = 3000
MOST_OUTPUT = 256 * 1024  # bytes of one output that a page shows; the rest is a download
MOST_RAW = 20_000  # characters of raw input or output that the page of a task shows
MOST_SAID = 4000  # characters of a running call's text
MOST_WAITING = 100  # sessions that the inbox shows: those that have waited longest


class DraftState(StrEnum):
    """Where a draft is."""

    DRAFT = "DRAFT"  # as the session made it
    APPROVED = "APPROVED"  # somebody will publish it
    SCHEDULED = "SCHEDULED"  # it has a time
    POSTED = "POSTED"  # it is out
    ARCHIVED = "ARCHIVED"  # nobody will publish it


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
class RevisionRow:
    """One version of a phase's output."""

    id: int
    phase: int
    generation: int
    number: int
    author: str
    created_at: datetime
    approved_at: datetime | None
    approved_by: str | None
    complaint: str | None  # of the flow's own check
    comment: str | None  # why it was edited
    bytes: int
    output: Any  # None when it is larger than MOST_OUTPUT, see ``bytes``

    @property
    def too_large(self) -> bool:
        """Whether the output is left out here."""
        return self.bytes > MOST_OUTPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task, without what it was given and made."""

    id: int
    phase: int
    generation: int
    step: str
    item: int
    status: str
    queued: bool
    awaiting: bool
    tolerated: bool  # failed, and its siblings go on without it
    attempt: int
    available_at: datetime
    worker_id: int | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWhole(TaskRow):
    """One task with what it was given and made, as JSON text, cut at MOST_RAW characters."""

    request: str | None
    request_length: int | None
    result: str | None
    result_length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt that ended."""

    task_id: int
    number: int
    outcome: str
    started_at: datetime
    finished_at: datetime
    retry_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One call."""

    task_id: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWhole:
    """One call with its bytes, cut at MOST_RAW."""

    id: int
    attempt: int
    number: int
    kind: str
    provider: str
    model: str
    outcome: str
    failure: str | None
    http_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    started_at: datetime
    finished_at: datetime
    request: bytes
    request_bytes: int
    answer: bytes | None
    answer_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidRow:
    """The end of what a call of a running attempt has said."""

    task_id: int
    attempt: int
    call: int
    text: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRow:
    """One draft with the session it comes from."""

    id: int
    session_id: str
    session_title: str
    flow: str
    generation: int  # of the last phase
    number: int
    title: str
    body: dict[str, Any]
    sources: list[dict[str, Any]]
    status: str
    created_at: datetime
    changed_by: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentTask:
    """A task that ended lately."""

    status: str
    ended_at: datetime


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


_JSON = {"flow_phases", "output", "error", "body", "sources"}


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    # Not orjson: it makes floats of long integers.
    return {k: json.loads(v) if k in _JSON and v is not None else v for k, v in row.items()}


class Pages:
    """What the pages show. Session ids are text; NotFound for one that is none."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def _rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        with translated(self._dsn):
            return [_fields(row) for row in await self._pool.fetch(sql(query), *args)]

    async def now(self) -> datetime:
        """Return the database's time."""
        (row,) = await self._rows("page_now")
        moment: datetime = row["now"]
        return moment

    async def last_event(self, session_id: str) -> int:
        """Return the id of a session's newest event; 0 without one."""
        (row,) = await self._rows("page_last_event", parse_session_id(session_id))
        return int(row["id"])

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
        return [SessionRow(**_fields(row)) for row in rows]

    async def waiting(self) -> list[SessionRow]:
        """Return what waits for a person, longest first."""
        return [SessionRow(**row) for row in await self._rows("page_waiting", MOST_WAITING)]

    async def waiting_count(self, most: int = 100) -> int:
        """Return how many sessions are at a gate or failed, counting no further than ``most``."""
        (row,) = await self._rows("page_waiting_count", most)
        return int(row["count"])

    async def revisions(self, session_id: str) -> list[RevisionRow]:
        """Return every revision of a session, oldest first."""
        return [
            RevisionRow(**row)
            for row in await self._rows("page_revisions", parse_session_id(session_id), MOST_OUTPUT)
        ]

    async def output(self, session_id: str, revision: int) -> str:
        """Return the output of one revision, as JSON text, whole.

        Raises:
            NotFound: there is none.
        """
        with translated(self._dsn):
            text = await self._pool.fetchval(
                sql("page_revision"), parse_session_id(session_id), revision
            )
        if text is None:
            raise NotFound(f"Session {session_id} has no revision {revision}.")
        return str(text)

    async def output_schema(self, session_id: str, phase: int) -> dict[str, Any] | None:
        """Return the schema of a phase's output, or None when its worker did not tell it."""
        rows = await self._rows("page_output_schema", parse_session_id(session_id), phase)
        text = rows[0]["schema"] if rows else None
        return None if text is None else json.loads(text)

    async def tasks(self, session_id: str) -> list[TaskRow]:
        """Return the newest tasks of a session in running order."""
        rows = await self._rows("page_tasks", parse_session_id(session_id), MOST_TASKS)
        return [TaskRow(**row) for row in rows]

    async def attempts(self, tasks: Sequence[TaskRow]) -> list[AttemptRow]:
        """Return the attempts of tasks that ended."""
        rows = await self._rows("page_attempts", [t.id for t in tasks])
        return [AttemptRow(**row) for row in rows]

    async def calls(self, session_id: str) -> list[CallRow]:
        """Return the calls of a session."""
        rows = await self._rows("page_calls", parse_session_id(session_id), MOST_CALLS)
        return [CallRow(**row) for row in rows]

    async def said(self, session_id: str) -> list[SaidRow]:
        """Return what running attempts have said so far."""
        rows = await self._rows("page_said", parse_session_id(session_id), MOST_SAID)
        return [SaidRow(**row) for row in rows]

    async def task(self, session_id: str, task_id: int) -> TaskWhole:
        """Return one task.

        Raises:
            NotFound: the session has no such task.
        """
        rows = await self._rows("page_task", parse_session_id(session_id), task_id, MOST_RAW)
        if not rows:
            raise NotFound(f"Session {session_id} has no task {task_id}.")
        return TaskWhole(**rows[0])

    async def task_calls(self, session_id: str, task_id: int) -> list[CallWhole]:
        """Return the calls of a task."""
        rows = await self._rows("page_task_calls", parse_session_id(session_id), task_id, MOST_RAW)
        return [CallWhole(**row) for row in rows]

    async def drafts(
        self,
        *,
        status: str | None = None,
        before: int | None = None,
        session_id: str | None = None,
        limit: int = 60,
    ) -> list[DraftRow]:
        """Return drafts, newest first; without a status, all that are not archived."""
        only = parse_session_id(session_id) if session_id else None
        rows = await self._rows("page_drafts", status, before, limit, only)
        return [DraftRow(**row) for row in rows]

    async def flow_history(self, flow: str, newest: int = 20) -> FlowHistory:
        """Return what the newest completed sessions of a flow took."""
        (row,) = await self._rows("page_flow_history", flow, newest)
        return FlowHistory(**row)

    async def models(self, newest: int = 300) -> list[str]:
        """Return ``provider:model`` of those that answer now, or did lately."""
        return [row["name"] for row in await self._rows("page_models", newest)]

    async def draft_counts(self) -> dict[str, int]:
        """Return how many drafts there are of each status."""
        found = {row["status"]: row["drafts"] for row in await self._rows("page_draft_counts")}
        return {status: found.get(status, 0) for status in DraftState}

    async def move_draft(self, draft: int, to: DraftState, *, seen: DraftState, actor: str) -> None:
        """Give a draft another status, if it still has the one that was ``seen``.

        Raises:
            NotFound: there is no such draft.
            Conflict: somebody moved it meanwhile.
        """
        if await self._rows("move_draft", draft, to, seen, actor):
            return
        now = await self.draft(draft)
        if now.status != to:
            raise Conflict(
                f"Draft {draft} is {now.status} by now (moved by {now.changed_by}). Look again."
            )

    async def draft(self, draft: int) -> DraftRow:
        """Return one draft.

        Raises:
            NotFound: there is none.
        """
        rows = await self._rows("get_draft", draft)
        if not rows:
            raise NotFound(f"There is no draft {draft}.")
        return DraftRow(**rows[0])

    async def edit_draft(
        self, draft: int, *, title: str, body: dict[str, Any], seen: datetime | None, actor: str
    ) -> None:
        """Give a draft another title and body, if nobody changed it since ``seen``.

        Raises:
            NotFound: there is no such draft.
            Conflict: somebody changed it meanwhile.
        """
        text = json.dumps(body, ensure_ascii=False)
        if not await self._rows("edit_draft", draft, title, text, seen, actor):
            now = await self.draft(draft)
            raise Conflict(f"Draft {draft} was changed by {now.changed_by}. Look again.")

    async def recent_tasks(self, newest: int = 5000) -> list[RecentTask]:
        """Return those of the newest tasks that ended."""
        return [RecentTask(**row) for row in await self._rows("page_recent_tasks", newest)]

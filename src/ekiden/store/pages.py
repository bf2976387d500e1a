"""What the pages of a session show: little, bounded, in few round trips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ekiden.errors import NotFound
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql
from ekiden.store.reader import Reader

MOST_TASKS = 1000  # tasks of one session that a page shows
MOST_CALLS = 3000
MOST_OUTPUT = 256 * 1024  # bytes of one output that a page shows; the rest is a download
MOST_RAW = 20_000  # characters of raw input or output that the page of a task shows
MOST_SAID = 4000  # characters of a running call's text


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
class RecentTask:
    """A task that ended lately."""

    status: str
    ended_at: datetime


class Pages(Reader):
    """What the pages of a session show. Session ids are text; NotFound for one that is none."""

    async def now(self) -> datetime:
        """Return the database's time."""
        (row,) = await self._rows("page_now")
        moment: datetime = row["now"]
        return moment

    async def last_event(self, session_id: str) -> int:
        """Return the id of a session's newest event; 0 without one."""
        (row,) = await self._rows("page_last_event", parse_session_id(session_id))
        return int(row["id"])

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
        """Return the newest tasks of a session, and those that run, in running order."""
        rows = await self._rows("page_tasks", parse_session_id(session_id), MOST_TASKS)
        return [TaskRow(**row) for row in rows]

    async def task_count(self, session_id: str) -> int:
        """Return how many tasks a session has."""
        (row,) = await self._rows("page_task_count", parse_session_id(session_id))
        return int(row["tasks"])

    async def phases(self, session_id: str) -> list[int]:
        """Return the phases of a session that were begun, or that a fork shares."""
        return [
            row["phase"] for row in await self._rows("page_phases", parse_session_id(session_id))
        ]

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

    async def recent_tasks(self, newest: int = 5000) -> list[RecentTask]:
        """Return those of the newest tasks that ended."""
        return [RecentTask(**row) for row in await self._rows("page_recent_tasks", newest)]

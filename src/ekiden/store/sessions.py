"""Sessions as people create, start, review and look at them. One method a query."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson

from ekiden import failpoint
from ekiden.core import records
from ekiden.core.model import Event, Options, Review, Reviewed, SessionState, Verb
from ekiden.core.progress import progress
from ekiden.core.refusals import instead
from ekiden.errors import Conflict, NotFound, UnknownFlow
from ekiden.store.alerts import Alerts
from ekiden.store.archive import Archive
from ekiden.store.budgets import Budgets
from ekiden.store.connection import address_of, parse_session_id, translated
from ekiden.store.decisions import lock
from ekiden.store.drafts import Board
from ekiden.store.inside import Inside
from ekiden.store.lists import Lists
from ekiden.store.logins import Logins
from ekiden.store.metrics import Metrics
from ekiden.store.pages import Pages
from ekiden.store.partials import Partials
from ekiden.store.queries import sql
from ekiden.store.recording import Recordings
from ekiden.store.reviews import Reviews
from ekiden.store.rows import decode, in_order


class Sessions:
    """Everything about sessions but running them.

    Session ids are text; one that is not a UUID raises NotFound like one that does not exist.
    """

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn
        self.partials = Partials(pool, dsn)
        self.reviews = Reviews(pool, dsn)
        self.budgets = Budgets(pool, dsn)
        self.pages = Pages(pool, dsn)
        self.lists = Lists(pool, dsn)
        self.board = Board(pool, dsn)
        self.metrics = Metrics(pool, dsn)
        self.alerts = Alerts(pool, dsn)
        self.inside = Inside(pool, dsn)
        self.recordings = Recordings(pool, dsn)
        self.archive = Archive(pool, dsn)
        self.logins = Logins(pool, dsn)

    @property
    def address(self) -> str:
        """Where the database is, without credentials, for people."""
        return address_of(self._dsn)

    async def _rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        with translated(self._dsn):
            return await self._pool.fetch(sql(query), *args)

    async def _row(self, query: str, *args: Any) -> asyncpg.Record | None:
        with translated(self._dsn):
            return await self._pool.fetchrow(sql(query), *args)

    async def _decide(
        self, query: str, session_id: str, *args: Any, seen: str | None = None
    ) -> asyncpg.Record | None:
        """Run the statement of a decision once the session's lock is ours.

        Two statements: the second takes its snapshot after the wait, and so misses nothing of
        the hand-off that held the lock.
        """
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                await lock(connection, session_id, seen)
                failpoint.reach("review.before")
                row = await connection.fetchrow(sql(query), session_id, *args)
            failpoint.reach("review.after")
        return row

    # -- what people do -----------------------------------------------------------------------

    async def create(
        self,
        flow: str,
        *,
        title: str,
        input: dict[str, Any],  # noqa: A002
        options: Options,
        start: bool = False,
        idempotency_key: str | None = None,
        actor: str = "api",
    ) -> tuple[str, bool]:
        """Create a session; return its id and whether it is new (not for a repeated key).

        Args:
            flow: name of a registered flow; its newest version is taken.
            title: what people see.
            input: checked against the flow's input schema by the caller.
            options: how it runs.
            start: start its first step now; else it is held until ``start``.
            idempotency_key: a second call with the same key returns the first one's session.
            actor: who starts it.

        Raises:
            UnknownFlow: no worker has registered such a flow.
        """
        values = (
            flow, title[:500], orjson.dumps(input).decode(), options.auto_steps,
            options.auto_phases, options.max_retries, options.retry_delay, options.timeout,
            idempotency_key, start, actor, _gates(options), orjson.dumps(options.models).decode(),
            list(options.budgets), [b.max_cost_usd for b in options.budgets.values()],
            [b.max_tokens for b in options.budgets.values()],
        )  # fmt: skip
        row = await self._row("create_session", *values)
        if row is None and idempotency_key is not None:
            # The same key was just used beside us: its session is newer than our snapshot.
            row = await self._row("create_session", *values)
        if row is None:
            raise UnknownFlow(
                f"There is no flow {flow!r}: no worker has registered it. "
                "See the flows there are with: ekiden doctor."
            )
        return row["id"], row["created"]

    async def start(self, session_id: str, *, seen: str | None = None) -> int:
        """Let held tasks go (process-async); return how many. Safe to repeat.

        Args:
            session_id: the session.
            seen: where it stood when somebody looked (``refusals.place``); None is wherever it is.

        Raises:
            NotFound: no such session.
            Conflict: the session is not RUNNING, or has moved on since; the message says what to do
                instead.
        """
        row = await self._decide("start_session", parse_session_id(session_id), seen=seen)
        status = _status(row, session_id)
        assert row is not None
        if status != "RUNNING":
            raise instead(SessionState(status), session_id, row["stop"])
        return int(row["started"])

    async def approve(
        self,
        session_id: str,
        *,
        actor: str,
        comment: str | None = None,
        revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> Reviewed:
        """Pass the gate the session stands at, exactly once however many ask.

        Args:
            session_id: the session.
            actor: who decides.
            comment: why, for the record.
            revision: the revision that was looked at; None takes the one that stands.
            idempotency_key: a second call with the same key is the same decision.

        Raises:
            NotFound: no such session.
            NoGate: it is not waiting at a gate.
            StaleRevision: the output changed since ``revision``.
            Conflict: the key was used for another decision.
        """
        return await self.reviews.take(
            session_id,
            Review(
                verb=Verb.APPROVE,
                actor=actor,
                comment=comment,
                revision=revision,
                key=idempotency_key,
            ),
        )

    async def pause(self, session_id: str, *, actor: str) -> None:
        """Let what runs end and start nothing new.

        Raises:
            NotFound: no such session.
            Conflict: it is not RUNNING.
        """
        await self._change("pause_session", session_id, actor, already="PAUSED")

    async def resume(self, session_id: str, *, actor: str) -> None:
        """Go on with a paused or failed session; failed tasks get a fresh budget.

        Raises:
            NotFound: no such session.
            Conflict: it is neither PAUSED nor FAILED (RUNNING is fine: there is nothing to do), or
                it has stopped over items that failed.
        """
        await self._change("resume_session", session_id, actor, already="RUNNING")

    async def cancel(self, session_id: str, *, actor: str) -> None:
        """End a session for good; what it has is kept.

        Raises:
            NotFound: no such session.
            Conflict: it is COMPLETED.
        """
        await self._change("cancel_session", session_id, actor, already="CANCELLED")

    async def _change(self, query: str, session_id: str, actor: str, *, already: str) -> None:
        row = await self._decide(query, parse_session_id(session_id), actor)
        status = _status(row, session_id)
        assert row is not None
        if not row["changed"] and status != already:
            raise instead(SessionState(status), session_id, row["stop"])

    async def deliver(self, session_id: str, *, task_id: int, attempt: int, result: Any) -> None:
        """Deliver a running task's result from outside; a worker checks and completes it.

        Raises:
            Conflict: the task does not run under this attempt (any more).
        """
        row = await self._row(
            "deliver_result", task_id, attempt, orjson.dumps(result).decode(),
            parse_session_id(session_id),
        )  # fmt: skip
        if row is None:
            raise Conflict(f"Task {task_id} does not run under attempt {attempt} (any more).")

    async def ring(self) -> None:
        """Ring the bell of the queue (continue-async): whoever is idle looks again."""
        await self._rows("ring")

    # -- what people see ----------------------------------------------------------------------

    async def get(self, session_id: str) -> records.Session:
        """Return one session.

        Raises:
            NotFound: no such session.
        """
        row = await self._row("get_session", parse_session_id(session_id))
        if row is None:
            raise NotFound(f"There is no session {session_id}.")
        return decode(records.Session, row)

    async def progress(self, session_id: str) -> dict[str, Any]:
        """Return where a session is, as one object (docs/api.md).

        Raises:
            NotFound: no such session.
        """
        row = await self._row("session_progress", parse_session_id(session_id))
        if row is None:
            raise NotFound(f"There is no session {session_id}.")
        found = dict(row)
        counts, retry, usage, standing, approved = (
            found.pop(name) for name in ("counts", "retry", "usage", "standing", "approved")
        )
        return progress(
            decode(records.Session, found),
            [in_order(records.StepCount, c) for c in counts],
            None if retry is None else in_order(records.PendingRetry, retry),
            in_order(records.SessionUsage, usage),
            standing=None if standing is None else in_order(records.Standing, standing),
            approved=approved,
        )

    async def find(
        self,
        *,
        flow: str | None = None,
        status: str | None = None,
        after: str | None = None,
        archived: bool = False,
        limit: int = 50,
    ) -> list[records.SessionLine]:
        """Return sessions that are not archived, or those that are; newest first.

        Args:
            flow: only this one's.
            status: only these.
            after: start after this id.
            archived: those that are put away, and no others.
            limit: at most so many.
        """
        rows = await self._rows(
            "list_sessions", flow, status, parse_session_id(after) if after else None, limit,
            archived,
        )  # fmt: skip
        return [records.SessionLine(**row) for row in rows]

    async def revisions(self, session_id: str) -> list[records.Revision]:
        """Return every revision of every phase's output, oldest first."""
        rows = await self._rows("list_revisions", parse_session_id(session_id))
        return [decode(records.Revision, row) for row in rows]

    async def tasks(
        self, session_id: str, *, after: int | None = None, limit: int | None = None
    ) -> list[records.TaskLine]:
        """Return the tasks of a session, in running order.

        Args:
            session_id: the session.
            after: start after this one.
            limit: at most so many; None is all.
        """
        rows = await self._rows("list_tasks", parse_session_id(session_id), after, limit)
        return [decode(records.TaskLine, row) for row in rows]

    async def attempts(self, session_id: str, task_id: int) -> list[records.AttemptLine]:
        """Return the attempts of a task, the running one last."""
        rows = await self._rows("list_attempts", parse_session_id(session_id), task_id)
        return [decode(records.AttemptLine, row) for row in rows]

    async def calls(self, session_id: str, task_id: int) -> list[records.CallLine]:
        """Return the calls of a task."""
        rows = await self._rows("list_calls", parse_session_id(session_id), task_id)
        return [records.CallLine(**row) for row in rows]

    async def drafts(
        self, session_id: str | None = None, *, limit: int | None = None
    ) -> list[records.DraftLine]:
        """Return the drafts of a session, or the newest of all; without a limit, all there are."""
        only = parse_session_id(session_id) if session_id else None
        return [decode(records.DraftLine, r) for r in await self._rows("list_drafts", only, limit)]

    async def events(self, session_id: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        """Return a session's events after the id ``after``, oldest first, none missing."""
        rows = await self._rows("list_events", parse_session_id(session_id), after, limit)
        return [
            Event(**{**row, "data": orjson.loads(row["data"]) if row["data"] else {}})
            for row in rows
        ]

    async def flows(self) -> list[records.FlowLine]:
        """Return the newest version of every registered flow."""
        return [decode(records.FlowLine, row) for row in await self._rows("list_flows")]

    async def workers(self) -> list[records.WorkerLine]:
        """Return workers present and those that left within a day."""
        return [records.WorkerLine(**row) for row in await self._rows("list_workers")]


def _gates(options: Options) -> str:
    return orjson.dumps({str(phase): policy for phase, policy in options.gates.items()}).decode()


def _status(row: asyncpg.Record | None, session_id: str) -> str:
    if row is None:
        raise NotFound(f"There is no session {session_id}.")
    return str(row["status"])

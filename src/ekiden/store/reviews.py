"""Decisions of people, and what they look at before they decide.

There is one way to decide, ``Reviews.take``, for the API, the pages and the command line.
Each decision is one transaction under the session's lock: look, let the machine and the gate's
policy judge, do it, and leave a row in ``reviews``.
"""

from __future__ import annotations

import asyncpg

from ekiden import failpoint
from ekiden.core import records
from ekiden.core.model import Review, Reviewed
from ekiden.errors import Conflict, DatabaseError, InputInvalid, NotFound
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.decisions import DO, Desk, after_going_back, lock, no_edit_of
from ekiden.store.queries import sql
from ekiden.store.rows import decode

# revisions.approved_by where nobody was asked, or nobody answered in time.
_RESERVED = {"flow", "fork", "deadline"}
RESERVED_NAME = ("actor", "is a reserved name")  # a field, what is wrong with it


class Reviews:
    """Decisions over sessions."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def take(self, session_id: str, review: Review) -> Reviewed:
        """Take a decision, exactly once however many ask.

        Raises:
            NotFound: no such session.
            NoGate: there is nothing to decide on: it is not at a gate, or not stopped.
            StaleRevision: the output changed since ``review.revision``.
            InputInvalid: an edit does not fit the phase's schema; names each field.
            Conflict: the state or the gate's policy does not allow it, or the key was used for
                another decision; the message says what to do.
        """
        session_id = parse_session_id(session_id)
        if review.actor in _RESERVED:
            raise InputInvalid(
                f"{review.actor!r} is what approves by itself; use another name.",
                [RESERVED_NAME],
            )
        if (taken := await self._taken(session_id, review)) is not None:
            return taken
        try:
            return await self._decide(session_id, review)
        except (Conflict, DatabaseError) as error:
            # The same key was used beside us, and is why the state is another one.
            unique = isinstance(error.__cause__, asyncpg.UniqueViolationError)
            if not unique and not isinstance(error, Conflict):
                raise
            if (taken := await self._taken(session_id, review)) is None:
                raise
            return taken

    async def _decide(self, session_id: str, review: Review) -> Reviewed:
        """Look and decide under the session's lock.

        Each statement takes its snapshot after the wait for the lock, and so misses nothing of the
        hand-off that held it.
        """
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                await lock(connection, session_id, review.seen)
                failpoint.reach("review.before")
                row = await connection.fetchrow(sql("look_at_gate"), session_id)
                if row is None:
                    raise NotFound(f"There is no session {session_id}.")
                done = await DO[review.verb](Desk(connection, session_id, row, review))
                if review.key is not None:
                    await connection.execute(sql("keep_asked"), review.key, review.digest())
            failpoint.reach("review.after")
        return done

    async def _taken(self, session_id: str, review: Review) -> Reviewed | None:
        """Return what this decision did if it was taken already under its key.

        Raises:
            Conflict: the key stands for another decision.
        """
        if review.key is None:
            return None
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("review_by_key"), review.key)
        if row is None:
            return None
        same = (row["session_id"], row["verb"]) == (session_id, review.verb)
        # What an older version of Ekiden has taken is known by its verb alone.
        if not same or row["asked"] not in {None, review.digest()}:
            raise Conflict("This Idempotency-Key was used for another decision.")
        return Reviewed(
            status=row["status"], phase=row["phase"], revision=row["revision_id"], repeated=True
        )

    # -- what people look at ------------------------------------------------------------------

    async def would_be_stale(self, session_id: str, phase: int) -> tuple[list[int], list[int]]:
        """Return which later phases would run again if this one's output changed, and which not.

        Raises:
            NotFound: no such session.
        """
        gate, runs = await self._look(parse_session_id(session_id))
        stale, kept = after_going_back(gate, runs, phase)
        return sorted(stale), sorted(kept)

    async def check_edit(self, session_id: str, phase: int) -> None:
        """Refuse an edit that could not be stored, before anybody types it.

        Raises:
            NotFound: no such session.
            Conflict: the state does not allow it, or there is nothing to edit.
        """
        session_id = parse_session_id(session_id)
        gate, runs = await self._look(session_id)
        if refused := no_edit_of(session_id, gate, runs, phase):
            raise refused

    async def _look(self, session_id: str) -> tuple[asyncpg.Record, list[asyncpg.Record]]:
        """Return where a session is, and the newest run of each of its phases."""
        with translated(self._dsn):
            gate = await self._pool.fetchrow(sql("look_at_gate"), session_id)
            if gate is None:
                raise NotFound(f"There is no session {session_id}.")
            return gate, await self._pool.fetch(sql("look_at_runs"), session_id)

    async def of(self, session_id: str) -> list[records.ReviewLine]:
        """Return every decision over a session, oldest first."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("list_reviews"), parse_session_id(session_id))
        return [records.ReviewLine(**row) for row in rows]

    async def waiting(
        self, *, flow: str | None = None, limit: int = 100
    ) -> list[records.WaitingLine]:
        """Return the sessions that wait for a person, longest first."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("waiting_sessions"), flow, limit)
        return [decode(records.WaitingLine, row) for row in rows]

    async def waiting_times(self) -> records.WaitingTimes:
        """Return how long sessions wait for people, and how long decisions took in 30 days."""
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("waiting_percentiles"))
        assert row is not None
        return records.WaitingTimes(**row)

    async def revision(self, revision_id: int) -> records.Revision:
        """Return one revision of any session, with its output.

        Raises:
            NotFound: no such revision.
        """
        with translated(self._dsn):
            row = await self._pool.fetchrow(sql("get_revision"), revision_id)
        if row is None:
            raise NotFound(f"There is no revision {revision_id}.")
        return decode(records.Revision, row)

    async def fork(
        self,
        session_id: str,
        *,
        phase: int,
        actor: str,
        title: str | None = None,
        start: bool = False,
        idempotency_key: str | None = None,
    ) -> tuple[str, bool]:
        """Make a session that shares this one's approved outputs up to a phase.

        Returns its id and whether it is new (not for a repeated key).

        Args:
            session_id: the session to fork.
            phase: the last one whose output is shared; 0 shares nothing but the input.
            actor: who does it.
            title: of the new session; else the same.
            start: start its first step now.
            idempotency_key: a second call with the same key returns the first one's session.

        Raises:
            NotFound: no such session.
            Conflict: not all phases up to that one have an approved output that holds, or none
                follows; or the key was used to make another session.
        """
        session_id = parse_session_id(session_id)
        values = (session_id, phase, title, actor, start, idempotency_key)
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                await connection.execute(sql("keep_parent"), session_id)
                gate = await connection.fetchrow(sql("look_at_gate"), session_id)
                if gate is None:
                    raise NotFound(f"There is no session {session_id}.")
                if not 0 <= phase < gate["phases"]:
                    raise Conflict(
                        f"Phase {phase} cannot be the last that is shared: the flow has "
                        f"{gate['phases']} phases, and one must follow. 0 shares none."
                    )
                row = await connection.fetchrow(sql("fork_session"), *values)
                if row is None and idempotency_key is not None:
                    # The same key was just used beside us: its session is newer than our snapshot.
                    row = await connection.fetchrow(sql("fork_session"), *values)
        if row is None:
            raise Conflict(
                f"Not every phase of session {session_id} up to {phase} has an approved output "
                "that holds. Decide on what is open first, or share fewer phases."
            )
        if not row["same"]:
            raise Conflict("This Idempotency-Key was used to make another session.")
        return row["id"], row["created"]

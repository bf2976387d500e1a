"""The hot path: tasks claimed, completed and handed on; failed, retried and released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import starmap
from typing import Any

import asyncpg
import orjson

from ekiden.core.model import ClaimedTask, Error, Feedback, Options, Outcome, SessionData
from ekiden.store.connection import translated
from ekiden.store.queries import sql
from ekiden.store.words import storable


@dataclass(slots=True, kw_only=True)
class Completion:
    """One finished attempt and what follows it, as the committer sends it. Once a step: slim."""

    task: ClaimedTask
    result: str  # JSON
    event: str  # SessionEvent: advance, open_gate or finish
    next_phase: int  # the cursor afterwards
    next_step: str
    new_phase: bool
    hold: bool
    closes_phase: bool
    items: list[str] | None = None  # JSON of each item, when the next step fans out
    next_count: int = 1  # tasks of the next step; 0 at a gate or the end
    room: int = 1  # how many of them this worker takes at once
    reads: str | None = None  # phases whose output was used, as an array literal
    drafts: list[tuple[str, str, str]] = field(default_factory=list)  # title, body, sources
    complaint: str | None = None  # of the gate's check
    doubtful: bool = False  # a commit of it may have gone through: its answer was lost

    @property
    def follows(self) -> tuple[Any, ...]:
        """What follows it, in the order of the statement's arrays; much the same in a batch."""
        return (
            self.event, self.next_phase, self.next_step, self.new_phase, self.hold,
            self.closes_phase, self.next_count, self.room, self.reads,
        )  # fmt: skip


class Handed:
    """What the hand-off gave back for a batch.

    Attributes:
        accepted: positions of completions that passed their fence.
        left_queued: whether some tasks found no room here and wait in the queue.
    """

    def __init__(self, batch: Sequence[Completion], row: asyncpg.Record) -> None:
        self.accepted = {position - 1 for position in row["accepted"]}
        self.left_queued: bool = row["left_queued"]
        self._batch = batch
        self._row = row

    @cached_property
    def following(self) -> dict[int, list[ClaimedTask]]:
        """Tasks already claimed by this worker, by the position that they follow.

        Put together when it is asked for: the next batch can be on its way by then.
        """
        row, found = self._row, dict[int, list[ClaimedTask]]()
        if row["next_of"] is None:
            return found
        for position, id_, item, generation in zip(
            row["next_of"], row["next_ids"], row["next_items"], row["next_generations"], strict=True
        ):
            done = self._batch[position - 1]
            found.setdefault(position - 1, []).append(
                ClaimedTask(
                    id=id_,
                    session_id=done.task.session_id,
                    flow_id=done.task.flow_id,
                    phase=done.next_phase,
                    step=done.next_step,
                    item=item,
                    generation=generation,
                    attempt=1,
                    budget_from=0,
                    request=done.items[item] if done.items is not None else None,
                )
            )
        return found


class Tasks:
    """Tasks, for a worker."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def claim(
        self, worker_id: int, flow_ids: Sequence[int], limit: int, session_id: str | None = None
    ) -> list[ClaimedTask]:
        """Claim up to ``limit`` due tasks of these flows, oldest first."""
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("claim_tasks"), worker_id, flow_ids, limit, session_id
            )
        return [_claimed(row) for row in rows]

    async def next_due(
        self, flow_ids: Sequence[int], session_id: str | None = None
    ) -> float | None:
        """Return in how many seconds the nearest queued task is due; None if none is queued."""
        with translated(self._dsn):
            due: timedelta | None = await self._pool.fetchval(sql("next_due"), flow_ids, session_id)
        return None if due is None else due.total_seconds()

    async def load_sessions(self, session_ids: Sequence[str]) -> dict[str, SessionData]:
        """Return what a worker must know of these sessions."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("load_sessions"), session_ids)
        return {row["session_id"]: _session_data(row) for row in rows}

    async def retry(
        self,
        task: ClaimedTask,
        error: Error,
        delay: timedelta,
        *,
        counts: bool = True,
    ) -> bool:
        """Queue a failed attempt's task again; False when the attempt no longer holds it.

        One that does not count is given back: it waits for something, and nothing went wrong.
        """
        outcome = Outcome.RETRIED if counts else Outcome.RELEASED
        with translated(self._dsn):
            due = await self._pool.fetchval(
                sql("retry_task"), task.id, task.attempt, _json(error), delay, outcome, counts
            )
        return due is not None

    async def fail(self, task: ClaimedTask, error: Error) -> bool:
        """Fail a task and its session; False when the attempt no longer holds it."""
        with translated(self._dsn):
            row = await self._pool.fetchval(sql("fail_task"), task.id, task.attempt, _json(error))
        return row is not None

    async def drop_item(self, task: ClaimedTask, error: Error, *, goes_on_with: float) -> bool:
        """Give an item of a fan-out up, its siblings go on; False when it is no longer held.

        Args:
            task: the item.
            error: why.
            goes_on_with: the share of items, in (0, 1], with which the flow goes on.
        """
        with translated(self._dsn):
            items: int = await self._pool.fetchval(sql("siblings_of"), task.id)
            # Of 20 items with 0.8, 4 may fail. Rounded first: 20 * 0.2 is no whole number.
            may_fail = int(round(items * (1 - goes_on_with), 9))
            row = await self._pool.fetchval(
                sql("drop_item"), task.id, task.attempt, _json(error), may_fail
            )
        return row is not None

    async def stop_for_budget(self, task: ClaimedTask, stop: dict[str, Any]) -> bool:
        """Put a task back and stop its session at a budget; False when it is no longer held.

        A stop that was decided on limits that a person has changed since stops nothing: the task is
        given back, and its next attempt reserves by the new ones.
        """
        text = orjson.dumps(stop).decode()
        with translated(self._dsn):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="read_committed"),
            ):
                await connection.execute(sql("lock_session"), task.session_id)
                if await connection.fetchval(sql("limits_changed"), task.session_id, text):
                    row = await connection.fetchval(sql("release_task"), task.id, task.attempt)
                else:
                    row = await connection.fetchval(
                        sql("stop_for_budget"), task.id, task.attempt, text
                    )
        return row is not None

    async def keep_log(self, task: ClaimedTask, lines: str) -> None:
        """Keep what an attempt has logged, a JSON list."""
        with translated(self._dsn):
            await self._pool.execute(
                sql("keep_attempt_log"), task.session_id, task.id, task.attempt, lines
            )

    async def release(self, task: ClaimedTask) -> bool:
        """Give a task back unharmed; False when the attempt no longer holds it."""
        with translated(self._dsn):
            row = await self._pool.fetchval(sql("release_task"), task.id, task.attempt)
        return row is not None

    async def held_by(self, worker_id: int) -> list[ClaimedTask]:
        """Return every task this worker holds, whether it knows of it or not."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("tasks_running_on"), worker_id, None)
        return [_claimed(row) for row in rows]

    async def settle(
        self, worker_id: int, completions: Sequence[Completion]
    ) -> tuple[set[int], list[ClaimedTask]]:
        """Find out what became of a commit whose answer was lost.

        Returns:
            The ids of tasks that stand COMPLETED by these attempts, and every task of their
            sessions that this worker holds now, the handed-on ones among them.
        """
        with translated(self._dsn):
            done = await self._pool.fetch(
                sql("completed_attempts"),
                [c.task.id for c in completions],
                [c.task.attempt for c in completions],
                worker_id,
            )
            held = await self._pool.fetch(
                sql("tasks_running_on"), worker_id, list({c.task.session_id for c in completions})
            )
        return {row["id"] for row in done}, [_claimed(row) for row in held]


class Handoff:
    """The hand-off statement on a connection of its own, prepared once.

    Unlike the pool's methods this raises asyncpg's errors: the committer must tell a refused
    value from a commit whose fate is unknown.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._statement: Any = None

    async def warm_up(self) -> None:
        """Have the statement planned: what completes nothing changes nothing."""
        await self._send(0, [])

    async def complete(self, worker_id: int, batch: Sequence[Completion]) -> Handed:
        """Commit a batch of completions and hand on, in one statement."""
        return Handed(batch, await self._send(worker_id, batch))

    async def _send(self, worker_id: int, batch: Sequence[Completion]) -> asyncpg.Record:
        if self._statement is None:
            self._statement = await self._connection.prepare(sql("complete_tasks"))
        fans = [
            (ord_, item, request)
            for ord_, c in enumerate(batch, 1)
            if c.items is not None
            for item, request in enumerate(c.items)
        ]
        drafts = [
            (ord_, number, *draft)
            for ord_, c in enumerate(batch, 1)
            for number, draft in enumerate(c.drafts, 1)
        ]
        complaints = [
            (ord_, storable(c.complaint)) for ord_, c in enumerate(batch, 1) if c.complaint
        ]
        row: asyncpg.Record = await self._statement.fetchrow(
            worker_id,
            [c.task.id for c in batch],
            [c.task.attempt for c in batch],
            [c.task.session_id for c in batch],
            [c.result for c in batch],
            *_shared([c.follows for c in batch], 9),
            *(_columns(fans, 3)),
            *(_columns(drafts, 5)),
            *(_columns(complaints, 2)),
        )
        return row


def _shared(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Return at which position, from 1, each row stands among those that differ, and these."""
    positions: dict[tuple[Any, ...], int] = {}
    where = [positions.setdefault(row, len(positions) + 1) for row in rows]
    return [where, *_columns(list(positions), width)]


def _columns(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(c) for c in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _json(error: Error) -> str:
    # An error's text is for people: what PostgreSQL cannot hold is left out of it.
    said = error.as_json().items()
    return orjson.dumps({k: storable(v) if isinstance(v, str) else v for k, v in said}).decode()


def _claimed(row: asyncpg.Record) -> ClaimedTask:
    return ClaimedTask(**row)


def _session_data(row: asyncpg.Record) -> SessionData:
    outputs: dict[str, str] = orjson.loads(row["outputs"]) if row["outputs"] else {}
    return SessionData(
        session_id=row["session_id"],
        flow_id=row["flow_id"],
        phase=row["phase"],
        generation=row["generation"],
        options=Options(
            auto_steps=row["auto_steps"],
            auto_phases=row["auto_phases"],
            max_retries=row["max_retries"],
            retry_delay=row["retry_delay"],
            timeout=row["timeout"],
            gates={int(phase): policy for phase, policy in orjson.loads(row["gates"]).items()},
            models=orjson.loads(row["models"]),
        ),
        input=row["input"],
        outputs=dict(starmap(lambda phase, text: (int(phase), text), outputs.items())),
        plan=row["plan"],
        found=list(row["found"]),
        kept=frozenset(row["kept"]),
        feedback=None
        if row["note"] is None
        else Feedback(note=row["note"], previous=row["previous"]),
        model=row["model"],
        variables=orjson.loads(row["variables"]),
    )

"""The committer: every attempt that finished while the last commit was in flight, in one commit.

One connection. A second one in flight was tried and took a sixth of the rate: with the same
sessions in flight its batches are half as large, and PostgreSQL lets no two transactions that
notify commit at the same time (docs/performance.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import asyncpg

from ekiden import failpoint, telemetry
from ekiden.core.histogram import bucket_of
from ekiden.core.model import ClaimedTask
from ekiden.errors import DatabaseError, DatabaseUnreachable, EmbeddedServerError, ResultInvalid
from ekiden.store.connection import TRANSIENT, UNREACHABLE, connect, translated
from ekiden.store.tasks import Completion, Handed, Handoff, Tasks
from ekiden.worker.batcher import Batcher
from ekiden.worker.patience import Patience, patiently

BATCH = 128  # of 256 sessions one half commits while the other half runs
ANSWER = 30.0  # seconds in which a commit must be answered; then the connection is given up
HALVE_AFTER = 3  # failed tries of a batch
LOCK = 2.0  # seconds that a commit waits for a lock: all others of its batch wait with it
_BLOCKED = 0.05  # seconds of rest where that is refused without a wait

# What the committer answers: the tasks handed on to this worker, or None when the fence refused.
Answer = list[ClaimedTask] | None
_Entry = tuple[Completion, "asyncio.Future[Answer]"]
Times = dict[int, tuple[int, float]]  # attempts and seconds, by bucket of core/histogram.py


class Committer:
    """Commits completions and hands on.

    Args:
        dsn: where to connect; asked again before every connect.
        tasks: for settling commits whose answer was lost.
        worker_id: who commits; asked for each batch.
        holds: whether the worker is running a task already.
        left_queued: called when tasks had no room here and wait in the queue.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        tasks: Tasks,
        *,
        worker_id: Callable[[], int],
        holds: Callable[[int], bool],
        left_queued: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._tasks = tasks
        self._worker_id = worker_id
        self._holds = holds
        self._left_queued = left_queued
        self._connection: asyncpg.Connection | None = None
        self._handoff: Handoff | None = None
        self._times: Times = {}
        self._giving: set[asyncio.Task[None]] = set()  # what is given back in the background
        self._batcher: Batcher[Completion, Answer] = Batcher(
            self._commit, limit=BATCH, name="commit"
        )

    async def start(self) -> None:
        """Connect and begin.

        Raises:
            DatabaseUnreachable: the first connection failed.
        """
        await self._open()
        self._batcher.start()

    def submit(self, completion: Completion) -> asyncio.Future[Answer]:
        """Queue a completion; the future resolves once its commit is durable.

        The future raises ResultInvalid when PostgreSQL refuses the result itself.
        """
        return self._batcher.put(completion)

    def take_times(self) -> Times:
        """Return how long commits took since this was last asked."""
        times, self._times = self._times, {}
        return times

    def _note(self, seconds: float, attempts: int) -> None:
        """Note a commit, for each of its attempts: once a batch, not once a step."""
        bucket = bucket_of(seconds)
        n, total = self._times.get(bucket, (0, 0.0))
        self._times[bucket] = n + attempts, total + seconds * attempts

    async def close(self) -> None:
        """Commit what is left and let the connection go."""
        try:
            await self._batcher.close()
            if self._giving:
                await asyncio.wait(self._giving)
        finally:
            self._stop_giving()
        if self._connection is not None:
            await self._connection.close(timeout=2)

    def abort(self) -> None:
        """Let go at once."""
        self._batcher.abort()
        self._stop_giving()
        if self._connection is not None:
            self._connection.terminate()

    def _stop_giving(self) -> None:
        for giving in self._giving:
            giving.cancel()

    async def _open(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        # A plan made for the parameters at hand costs more to make than it saves here, and would
        # lean on statistics that change by the second.
        self._connection = await connect(
            self._dsn(),
            settings={
                "plan_cache_mode": "force_generic_plan",
                "lock_timeout": f"{LOCK * 1000:.0f}ms",
            },
            command_timeout=ANSWER,
        )
        handoff = Handoff(self._connection)
        # Else the first hop would wait for it, ten times its own time. Nothing depends on it.
        with suppress(DatabaseError), translated(self._dsn()):
            await handoff.warm_up()
        self._handoff = handoff

    async def _commit(self, batch: list[_Entry]) -> None:
        """Commit a batch and resolve every future; log what is no fault of the batch, and wait."""
        patience = Patience()
        await self._commit_or_halve(batch, patience)
        patience.over()

    async def _commit_or_halve(self, batch: list[_Entry], patience: Patience) -> None:
        """Commit a batch, however long the database takes to be there; count what goes wrong.

        A completion whose session somebody holds is put back, and the others go on.
        """
        tries = 0
        while batch:
            try:
                if self._handoff is None:
                    await self._open()
                    batch = await self._settle(batch)
                    continue
                await self._send(self._handoff, batch)
                return
            except asyncpg.LockNotAvailableError as error:
                if len(batch) > 1:
                    batch = await self._commit_half(batch, patience)
                    continue
                telemetry.emit("commit_blocked", error=str(error), **_where(batch[0]))
                await asyncio.sleep(_BLOCKED)
                self._batcher.put_back(batch[0])
                return
            except TRANSIENT as error:
                trouble: Exception = error  # nothing was committed; the same again
            except (*UNREACHABLE, DatabaseUnreachable, EmbeddedServerError) as error:
                # Whether it was committed is unknown until we can ask.
                trouble, self._handoff = error, None
                for completion, _ in batch:
                    completion.doubtful = True
            except (asyncpg.PostgresError, DatabaseError) as error:
                if len(batch) == 1:
                    _refuse(batch[0], error)
                    return
                # One result that PostgreSQL refuses must not take its batch along.
                batch = await self._commit_half(batch, patience)
                continue
            except Exception as error:  # noqa: BLE001 - a future left open would hang its session
                _fail(batch, error)
                return
            await patience.wait(trouble)
            tries += 1
            if tries % HALVE_AFTER == 0 and len(batch) > 1:
                # It may be too much for a timeout; alone each has the best chance.
                batch = await self._commit_half(batch, patience)

    async def _commit_half(self, batch: list[_Entry], patience: Patience) -> list[_Entry]:
        """Commit the first half of a batch by itself and return the other."""
        half = len(batch) // 2
        await self._commit_or_halve(batch[:half], patience)
        return batch[half:]

    async def _send(self, handoff: Handoff, batch: list[_Entry]) -> None:
        for completion, future in batch:
            # Each of them: the one that is waited for may be in the middle of a batch.
            failpoint.reach_soon("commit.sent", completion.task.step, completion.task.phase)
            if (
                future.done()
            ):  # its chain was stopped: keep the result, leave what follows to others
                completion.room = 0
        begun = monotonic()
        handed = await handoff.complete(self._worker_id(), [c for c, _ in batch])
        self._note(monotonic() - begun, len(batch))
        refused = [entry for n, entry in enumerate(batch) if n not in handed.accepted]
        if len(self._batcher) and not refused:
            # PostgreSQL shall have the next batch first: it waits for nothing else.
            asyncio.get_running_loop().call_soon(self._tell_all, batch, handed)
            return
        self._tell(batch, handed)
        if any(completion.doubtful for completion, _ in refused):
            # The lost commit may have gone through while we asked: then its token is our own.
            refused = await self._settle(refused)
        for _, future in refused:
            if not future.done():
                future.set_result(None)

    def _tell_all(self, batch: list[_Entry], handed: Handed) -> None:
        """Do ``_tell``, from the loop: nobody above catches what goes wrong."""
        try:
            self._tell(batch, handed)
        except Exception as error:  # noqa: BLE001 - a future left open would hang its session
            _fail(batch, error)

    def _tell(self, batch: list[_Entry], handed: Handed) -> None:
        """Hand on what follows each completion of a batch that is durable."""
        for position in handed.accepted:
            self._accept(batch[position], handed.following.get(position, []))
        if handed.left_queued:
            self._left_queued()

    async def _settle(self, batch: list[_Entry]) -> list[_Entry]:
        """Resolve what an unanswered commit did do, by token, and return what it did not."""
        done, held = await self._tasks.settle(self._worker_id(), [c for c, _ in batch])
        open_: list[_Entry] = []
        for completion, future in batch:
            if completion.task.id not in done:
                open_.append((completion, future))
                continue
            following = [
                task
                for task in held
                if task.session_id == completion.task.session_id and not self._holds(task.id)
            ]
            # Siblings that were committed together: the first of them takes what follows.
            held = [task for task in held if task not in following]
            self._accept((completion, future), following)
        return open_

    def _accept(self, entry: _Entry, following: list[ClaimedTask]) -> None:
        """Resolve a completion that is durable; give back what its chain cannot go on with."""
        _, future = entry
        if not future.done():
            future.set_result(following)
        elif following:  # the chain was stopped while the commit was on its way
            giving = asyncio.create_task(self._give_back(following), name="give-back")
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)

    async def _give_back(self, tasks: list[ClaimedTask]) -> None:
        for task in tasks:
            await patiently(partial(self._tasks.release, task), refusals=None)
            self._left_queued()


def _where(entry: _Entry) -> dict[str, Any]:
    task = entry[0].task
    return {"session": task.session_id, "task": task.id, "attempt": task.attempt}


def _fail(batch: list[_Entry], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _refuse(entry: _Entry, error: Exception) -> None:
    _, future = entry
    if not future.done():
        future.set_exception(ResultInvalid(f"PostgreSQL refused the result: {error}"))

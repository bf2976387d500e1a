"""Chains: a session's steps, one after the other, in one coroutine from claim to gate.

No second claim, no query and no notification between two steps: the commit of one hands back the
next. A slot is one coroutine; a fan-out takes as many as are free.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ekiden import failpoint, telemetry, tracing
from ekiden.attempt_log import AttemptLog
from ekiden.core.model import ClaimedTask, StepKind
from ekiden.core.retry import GiveUp, decide_retry
from ekiden.errors import BudgetReached, DatabaseError, DatabaseUnreachable, StepError
from ekiden.flows.registry import CompiledFlow
from ekiden.store.tasks import Tasks
from ekiden.worker.committer import Committer
from ekiden.worker.executor import Executor, describe
from ekiden.worker.leg import Leg
from ekiden.worker.patience import patiently

_MAX_PUT_OFF = 5.0  # seconds before a step that met no database is given back


class Chains:
    """The slots of a worker and what runs in them.

    Args:
        capacity: how many tasks run at once.
        flow_of: the flows by their ids, as registered.
        look_again: called when the queue may hold something for this worker.
        slot_freed: called when a slot is free again.
    """

    def __init__(
        self,
        capacity: int,
        *,
        flow_of: dict[int, CompiledFlow],
        look_again: Callable[[], None],
        slot_freed: Callable[[], None],
    ) -> None:
        self.free = capacity
        self.closing = False  # hand nothing on to ourselves any more
        self.ended = 0  # attempts so far
        self._look_again = look_again
        self._slot_freed = slot_freed
        self._flow_of = flow_of
        # By task id, what runs it. A tuple: it is made once a step.
        self._running: dict[int, tuple[asyncio.Task[None], ClaimedTask]] = {}

    def connect(self, tasks: Tasks, executor: Executor, committer: Committer) -> None:
        """Say what to run with."""
        self._tasks = tasks
        self._executor = executor
        self._committer = committer

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._running

    def _runs(self, task: ClaimedTask) -> bool:
        _, known = self._running.get(task.id, (None, None))
        return known is not None and known.attempt == task.attempt

    def attempts(self) -> dict[int, int]:
        """Return the attempts that run: their numbers by task id."""
        # A copy first: the heart asks from its own thread.
        return {id_: task.attempt for id_, (_, task) in list(self._running.items())}

    def abort(self, attempts: dict[int, int]) -> None:
        """Stop these attempts (numbers by task id) in the middle."""
        for id_, number in attempts.items():
            chain, task = self._running.get(id_, (None, None))
            if chain is not None and task is not None and task.attempt == number:
                chain.cancel()

    async def start(self, claimed: list[ClaimedTask]) -> None:
        """Give claimed tasks their slots and run them."""
        self.free -= len(claimed)
        try:
            data = await self._tasks.load_sessions(list({t.session_id for t in claimed}))
        except DatabaseError:
            data = {}  # each chain asks for its own leg, with patience
        for task in claimed:
            if self._runs(task):
                # A commit whose answer was lost was settled meanwhile, and handed it on already.
                self.free += 1
                self._slot_freed()
                continue
            known = data.get(task.session_id)
            leg = None if known is None else Leg.of(self._flow_of[task.flow_id], known)
            self._spawn(task, leg)

    async def finish(self, seconds: float) -> bool:
        """Let what runs end; cancel what has not by then, and return whether there was any."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:
                    await asyncio.wait([chain for chain, _ in self._running.values()])
        cut_short = bool(self._running)
        self.cancel()
        if self._running:
            await asyncio.wait([chain for chain, _ in self._running.values()])
        return cut_short

    def cancel(self) -> None:
        """Stop everything in the middle; each task is given back."""
        for chain, _ in list(self._running.values()):
            chain.cancel()

    async def give_back(self, task: ClaimedTask) -> None:
        """Return a task that was stopped in the middle; the attempt does not count."""
        with suppress(DatabaseError):
            await self._tasks.release(task)

    def _spawn(self, task: ClaimedTask, leg: Leg | None) -> None:
        """Run a task in a slot that was taken for it already."""
        self._running[task.id] = asyncio.create_task(self._chain(task, leg)), task

    async def _chain(self, task: ClaimedTask, leg: Leg | None) -> None:
        """Run a task and everything that its completion hands to this worker."""
        me = asyncio.current_task()
        assert me is not None
        try:
            while True:
                if leg is None or not leg.serves(task):
                    leg = await self._load(task)
                handed = await self._attempt(task, leg)
                if handed is None:
                    return
                following, leg = handed
                self._forget(task, me)
                task, *others = following
                if leg.generation != task.generation:
                    leg = replace(leg, generation=task.generation)
                self._running[task.id] = me, task
                for other in others:
                    self._spawn(other, leg)
        except asyncio.CancelledError:
            await self.give_back(task)
        except Exception as error:  # noqa: BLE001 - ours, not the flow's: the task must not hang
            ours = describe(error)
            telemetry.emit("attempt_failed", error=ours.message, reason="worker", **_where(task))
            again = timedelta(seconds=5)
            await patiently(lambda: self._tasks.retry(task, ours, again), refusals=None)
        finally:
            self._forget(task, me)
            self.free += 1
            self._slot_freed()

    def _forget(self, task: ClaimedTask, chain: asyncio.Task[None]) -> None:
        """Forget that a chain runs a task; its next attempt may be running here already."""
        known = self._running.get(task.id)
        if known is not None and known[0] is chain:
            del self._running[task.id]
            self.ended += 1

    async def _attempt(self, task: ClaimedTask, leg: Leg) -> tuple[list[ClaimedTask], Leg] | None:
        """Run one attempt and commit it; None when nothing follows here."""
        log = AttemptLog(task).begin()
        try:
            with tracing.attempt(task, leg.flow.name):
                finished = await self._executor.run(task, leg)
        except Exception as error:  # noqa: BLE001 - whatever a flow raises ends its attempt
            await self._attempt_failed(task, leg, error, log)
            return None
        completion = finished.completion
        extra = 0
        if self.closing:
            completion.room = 0  # what follows is for someone who stays
        elif completion.next_count > 1:
            extra = min(self.free, completion.next_count - 1)
            self.free -= extra
            completion.room = 1 + extra
        used = 0
        failpoint.reach("commit.before", task.step, task.phase)
        try:
            following = await self._committer.submit(completion)
            failpoint.reach("commit.after", task.step, task.phase)
            used = max(0, len(following or ()) - 1)
        except StepError as error:
            await self._attempt_failed(task, leg, error, log)
            return None
        finally:
            self.free += extra - used
        if following is None:
            telemetry.emit("attempt_refused", **_where(task))
            return None
        if telemetry.listens("attempt_completed"):  # asked first: this is once a step
            telemetry.emit("attempt_completed", **_where(task))
        if log.warned:
            await self._keep(task, log)
        return (following, finished.leg) if following else None

    async def _load(self, task: ClaimedTask) -> Leg:
        data = await patiently(lambda: self._tasks.load_sessions([task.session_id]))
        return Leg.of(self._flow_of[task.flow_id], data[task.session_id])

    async def _attempt_failed(
        self, task: ClaimedTask, leg: Leg, raised: Exception, log: AttemptLog
    ) -> None:
        if _met_no_database(raised):
            await self._put_off(task, raised)
            return
        if isinstance(raised, BudgetReached):
            await self._stop_for_budget(task, raised)
            return
        error = describe(raised)
        tries = task.attempt - task.budget_from
        counts = not isinstance(raised, StepError) or raised.counts
        asked = raised.retry_after if isinstance(raised, StepError) else None
        verdict = decide_retry(
            retryable=error.retryable,
            tries=tries if counts else 1,
            max_retries=leg.options.max_retries if counts else 1,
            base=leg.options.retry_delay if counts else timedelta(0),
            jitter=random.random(),  # noqa: S311
            retry_after=asked,
        )
        if isinstance(verdict, GiveUp):
            share = _goes_on_with(task, leg)
            if share is None:
                held = await patiently(lambda: self._tasks.fail(task, error))
            else:
                held = await patiently(
                    lambda: self._tasks.drop_item(task, error, goes_on_with=share)
                )
                self._look_again()  # the last of them may have queued what follows
            reason = verdict.reason
            if held:
                telemetry.emit("attempt_failed", error=error.message, reason=reason, **_where(task))
        else:
            delay = verdict.delay
            held = await patiently(lambda: self._tasks.retry(task, error, delay, counts=counts))
            if held:
                telemetry.emit(
                    "attempt_retried",
                    error=error.message,
                    retry_in_s=round(delay.total_seconds(), 2),
                    **_where(task),
                )
            # Also when it is not held: the answer to our own retry may be what was lost.
            self._look_again()  # the timer must know of it, even if its ring is lost
        if not held:
            telemetry.emit("attempt_refused", **_where(task))
        else:
            await self._keep(task, log)

    async def _keep(self, task: ClaimedTask, log: AttemptLog) -> None:
        """Keep what an attempt logged, if it did."""
        if lines := log.as_json():
            with suppress(DatabaseError):  # nothing depends on it
                await self._tasks.keep_log(task, lines)

    async def _stop_for_budget(self, task: ClaimedTask, raised: BudgetReached) -> None:
        """Give back a task whose next call would exceed a budget; a person decides."""
        if await patiently(lambda: self._tasks.stop_for_budget(task, raised.stop)):
            telemetry.emit("budget_reached", reason=raised.message, **_where(task))
        else:
            telemetry.emit("attempt_refused", **_where(task))

    async def _put_off(self, task: ClaimedTask, raised: Exception) -> None:
        """Give back a task whose step met no database; the attempt does not count."""
        pause = min(0.05 * 2 ** min(task.budget_from, 10), _MAX_PUT_OFF)
        telemetry.emit("database_lost", error=str(raised), next_try_s=round(pause, 2))
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        await patiently(lambda: self._tasks.release(task))
        self._look_again()


def _goes_on_with(task: ClaimedTask, leg: Leg) -> float | None:
    """Return the share of items with which the flow goes on; None when each failure ends it."""
    phase = leg.flow.phase(task.phase).spec
    if task.step != StepKind.EXECUTE or phase.failed_items == "fail":
        return None
    return 1.0 if phase.failed_items == "ask" else float(phase.failed_items)


def _met_no_database(error: BaseException | None) -> bool:
    """Whether that is what an error comes down to, however a step or a source put it."""
    while error is not None:
        if isinstance(error, DatabaseUnreachable):
            return True
        error = error.__cause__
    return False


def _where(task: ClaimedTask) -> dict[str, Any]:
    return {
        "session": task.session_id,
        "phase": task.phase,
        "step": task.step,
        "task": task.id,
        "attempt": task.attempt,
    }

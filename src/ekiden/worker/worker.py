"""A worker: claims tasks, runs them, commits and goes on with what the commit hands back.

bell, timer or a free slot → claim → chain (run → commit → run what follows → …) → gate or end
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from ekiden import __version__, failpoint, telemetry
from ekiden.core.alerts import Limits
from ekiden.core.model import WorkerState
from ekiden.core.retry import MAX_DEATHS
from ekiden.errors import DatabaseError
from ekiden.flows.registry import CompiledFlow
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import Provider
from ekiden.search.protocol import SearchEngine
from ekiden.store.budgets import Budgets
from ekiden.store.connection import open_pool
from ekiden.store.documents import Documents
from ekiden.store.doorbell import Doorbell
from ekiden.store.errands import Errands
from ekiden.store.feeds import Feeds
from ekiden.store.ledger import Ledger
from ekiden.store.metrics import Metrics
from ekiden.store.sessions import Sessions
from ekiden.store.tasks import Tasks
from ekiden.store.workers import Beat, Workers
from ekiden.worker.chains import Chains
from ekiden.worker.committer import Committer
from ekiden.worker.errands import ErrandRunner
from ekiden.worker.executor import Executor
from ekiden.worker.feeds import FeedRefresher
from ekiden.worker.heart import Heart, Pulse
from ekiden.worker.ledger_writer import LedgerWriter
from ekiden.worker.patience import patiently
from ekiden.worker.roller import Roller
from ekiden.worker.watch import Watch
from ekiden.worker.withdrawals import Withdrawals

SWEEP = 600.0  # seconds until a look that nothing asked for: each heartbeat asks, too
CONTENDED = 0.2  # seconds until the next look at a task that another worker has its hand on
LOST_CLAIM = 1.0  # seconds until a task that is ours and runs nowhere is believed to be lost


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker runs."""

    capacity: int = 16  # WORKER_BATCH_SIZE: tasks at once
    poll_interval: float = 5.0  # WORKER_POLL_INTERVAL, seconds; only while it cannot listen
    lease: timedelta = timedelta(seconds=60)  # EKIDEN_LEASE: how long claims hold unrenewed
    drain: float = 30.0  # seconds that running steps get on stop, before they are given back
    only_session: str | None = None  # claim this session's tasks only (ekiden run)
    alerts: Limits = field(default_factory=Limits)  # EKIDEN_ALERT_…
    feed_interval: float = 1800.0  # EKIDEN_FEED_INTERVAL: seconds between fetches; 0 fetches none


class Worker:
    """One worker in this process.

    Args:
        dsn: where the database is; asked again before every connect.
        flows: what it can run.
        listen_dsn: where it is without a pooler in between, if ``dsn`` has one.
        provider: answers ``ctx.ask``; None for flows that ask nothing.
        models: which provider answers where, instead of the one for all.
        search: answers ``ctx.search``.
        model: what people are shown as this worker's model.
        options: how it runs.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        flows: Sequence[CompiledFlow],
        *,
        listen_dsn: Callable[[], str] | None = None,
        provider: Provider | None = None,
        models: Models | None = None,
        search: SearchEngine | None = None,
        model: str = "none",
        options: WorkerOptions | None = None,
    ) -> None:
        self._dsn = dsn
        self._listen_dsn = listen_dsn or dsn
        self._flows = list(flows)
        self._models = models or Models(provider)
        self._search = search
        self._model = model
        self._options = options or WorkerOptions()
        self._flow_of: dict[int, CompiledFlow] = {}
        self._chains = Chains(
            self._options.capacity,
            flow_of=self._flow_of,
            look_again=self._look_again,
            slot_freed=self._slot_freed,
        )
        self._more = True  # whether the queue may hold something for us
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._look_at = 0.0  # loop time of the next look that nobody asks for
        self._cut_short = False
        self._doubt = asyncio.Event()  # the answer of a claim was lost
        self._lost = asyncio.Event()  # peers gave this worker up
        self._fenced = False  # its lease may be over: nothing may run
        self._stirred = False  # a beat brought that a task waits, or that a peer is gone
        self._ended = 0  # attempts, when that was last asked
        self.ready = asyncio.Event()
        self.id = 0

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until ``stop()``; then drain and return.

        Raises:
            DatabaseUnreachable: the database was not there at the start.
        """
        async with AsyncExitStack() as stack:
            await self._set_up(stack)
            await self._make_flows_known()
            await self._say_hello()
            self._doorbell = await stack.enter_async_context(Doorbell(self._listen_dsn))
            sessions = Sessions(self._pool, self._dsn())
            self._errands = ErrandRunner(Errands(self._pool, self._dsn()), sessions, self._doorbell)
            self._watch = Watch(sessions.alerts, self._options.alerts, lively=self._lively)
            self._feeds = FeedRefresher(
                Feeds(self._pool, self._dsn()), Documents(self._pool, self._dsn()), self._doorbell,
                every=0 if self._options.only_session else self._options.feed_interval,
            )  # fmt: skip
            self._withdrawals = Withdrawals(
                Ledger(self._pool, self._dsn()), self._models, self._doorbell
            )
            self._heart = Heart(
                self._listen_dsn,
                lease=self._options.lease,
                pulse=self._pulse,
                on_beat=self._on_beat,
                on_fence=self._on_fence,
            )
            await self._heart.start()
            stack.push_async_callback(self._heart.stop)
            await self._committer.start()
            self._ledger.start()
            background = [
                asyncio.create_task(self._begin_anew(), name="begin-anew"),
                asyncio.create_task(self._listen("task_queued", self._look_again), name="listen"),
                *(
                    asyncio.create_task(self._listen(channel, self._heart.beat_now), name=channel)
                    for channel in ("session_cancelled", "life_sign")
                ),
                asyncio.create_task(self._find_lost_claims(), name="lost-claims"),
                asyncio.create_task(self._errands.run(), name="errands"),
                asyncio.create_task(self._withdrawals.run(), name="withdrawals"),
                asyncio.create_task(self._feeds.run(), name="feeds"),
                asyncio.create_task(self._roller.run(), name="roller"),
                asyncio.create_task(self._watch.run(), name="watch"),
            ]
            try:
                await self._claim_until_stopped()
                await self._drain(self._options.drain)
            finally:
                await self._drain(0)  # stopped otherwise: nothing is left to run on unwatched
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                await self._let_go()

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns once the running steps have ended."""
        self._stopping.set()
        self._chains.closing = True
        self._wake.set()

    async def _set_up(self, stack: AsyncExitStack) -> None:
        dsn = self._dsn()
        self._pool = pool = await stack.enter_async_context(open_pool(dsn))
        self._tasks = Tasks(pool, dsn)
        self._workers = Workers(pool, dsn)
        self._ledger = LedgerWriter(Ledger(pool, dsn), Budgets(pool, dsn))
        self._executor = Executor(models=self._models, search=self._search, ledger=self._ledger)
        self._committer = Committer(
            self._dsn,
            self._tasks,
            worker_id=lambda: self.id,
            holds=self._chains.__contains__,
            left_queued=self._look_again,
        )
        self._chains.connect(self._tasks, self._executor, self._committer)
        self._roller = Roller(
            Metrics(pool, dsn),
            ended=lambda: self._chains.ended,
            commits=self._committer.take_times,
        )

    async def _make_flows_known(self) -> None:
        """Make the flows known as the newest: at the start only, for newer ones may come later."""
        for flow in self._flows:
            flow_id = await self._workers.register_flow(
                name=flow.name,
                version=flow.version,
                title=flow.title,
                phases=flow.describe(),
                input_schema=flow.input_schema,
                output_schemas=flow.output_schemas,
            )
            self._flow_of[flow_id] = flow

    async def _say_hello(self) -> None:
        self.id = await self._workers.register(
            software=__version__,
            model=self._model,
            flow_ids=list(self._flow_of),
            capacity=self._options.capacity,
            lease=self._options.lease,
            providers=self._models.askable,
        )
        telemetry.emit(
            "worker_started",
            worker=self.id,
            model=self._model,
            flows=[f.name for f in self._flows],
            capacity=self._options.capacity,
        )

    def _pulse(self) -> Pulse:
        """Say how this worker is; called by the heart's thread."""
        state = WorkerState.DRAINING if self._stopping.is_set() else WorkerState.ALIVE
        return Pulse(
            worker_id=self.id,
            state=state,
            flow_ids=list(self._flow_of),
            running=self._chains.attempts(),
        )

    def _on_beat(self, beat: Beat) -> None:
        if not beat.alive:
            self._lost.set()
            return
        if self._fenced:
            self._fenced = False
            self._doubt.set()  # what was stopped could not be given back
            self._look_again()
        if beat.due:
            self._look_again()
        self._stirred = self._stirred or beat.due or beat.deaths
        self._chains.abort(beat.cancelled)

    def _lively(self) -> bool:
        """Whether something has gone on that an alert may be about, since this was last asked."""
        ended, self._ended = self._ended, self._chains.ended
        stirred, self._stirred = self._stirred, False
        return stirred or bool(len(self._chains)) or ended != self._ended

    def _on_fence(self) -> None:
        """Stop what runs: the lease is about to end, and peers may take it over."""
        telemetry.emit("worker_fenced", worker=self.id, busy=len(self._chains))
        self._fenced = True
        self._chains.cancel()

    async def _begin_anew(self) -> None:
        """When peers gave this worker up, get a new identity.

        What runs may end: its commit will be refused, but its calls are paid for.
        """
        while True:
            await self._lost.wait()
            telemetry.emit("worker_lost", worker=self.id)
            await patiently(self._say_hello)
            self._fenced = False
            self._lost.clear()
            self._heart.beat_now()
            self._look_again()

    async def _drain(self, seconds: float) -> None:
        self._chains.closing = True
        if len(self._chains):
            telemetry.emit("worker_draining", worker=self.id, busy=len(self._chains))
            self._cut_short = await self._chains.finish(seconds)

    async def _let_go(self) -> None:
        """Close the writers and say goodbye; without a database there is no one to tell."""
        try:
            async with asyncio.timeout(10):
                await self._committer.close()
                await self._ledger.close()
                if self._cut_short:
                    # A commit in flight may have handed on to a chain that is no more.
                    await self._workers.rescue([self.id], max_deaths=MAX_DEATHS)
                await self._workers.stop(self.id)
                with suppress(DatabaseError):  # nothing depends on it
                    await self._roller.write_commits()
        except (DatabaseError, TimeoutError, OSError, asyncpg.InterfaceError):
            self._committer.abort()
            self._ledger.abort()
        telemetry.emit("worker_stopped", worker=self.id)

    # -- claiming -----------------------------------------------------------------------------

    def _look_again(self) -> None:
        self._more = True
        if self._chains.free:
            self._wake.set()

    def _slot_freed(self) -> None:
        if self._more:
            self._wake.set()

    async def _listen(self, channel: str, do: Callable[[], None]) -> None:
        """Do it whenever the bell of a channel rings."""
        async with self._doorbell.subscribe(channel) as bell:
            while True:
                if await bell.wait():
                    do()

    async def _claim_until_stopped(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = 0.1
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._fill()
                self.ready.set()
                pause = 0.1
            except DatabaseError as error:
                telemetry.emit("database_lost", error=str(error), next_try_s=round(pause, 2))
                self._more = True
                self._doubt.set()
                self._look_at = clock() + pause
                pause = min(pause * 2, self._options.poll_interval)
            if not self._doorbell.listening:
                self._look_at = min(self._look_at, clock() + self._options.poll_interval)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._look_at):
                    await self._wake.wait()

    async def _fill(self) -> None:
        """Claim while there is room and something may be due; note when to look again."""
        clock = asyncio.get_running_loop().time
        if not self._more and clock() >= self._look_at:
            # The timer: something is due, or nothing rang for long. Asking first is cheaper.
            self._more = await self._next_due() <= 0
        while (
            self._chains.free > 0 and self._more and not (self._fenced or self._stopping.is_set())
        ):
            self._more = False  # a ring from here on counts again
            asked = self._chains.free
            failpoint.reach("claim.before")
            claimed = await self._tasks.claim(
                self.id, list(self._flow_of), asked, self._options.only_session
            )
            if claimed:
                failpoint.reach("claim.after", claimed[0].step, claimed[0].phase)
                await self._chains.start(claimed)
            if len(claimed) == asked:
                self._more = True
            elif await self._next_due() <= 0:
                # Due and still not ours: somebody else is claiming it this very moment.
                self._look_at = clock() + CONTENDED
        if self._more:
            self._look_at = clock() + SWEEP  # no slot is free: the next one that is looks

    async def _next_due(self) -> float:
        """Return in how many seconds a task is due, and note it; the sweep where none is."""
        due = await self._tasks.next_due(list(self._flow_of), self._options.only_session)
        sweep = SWEEP * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        pause = sweep if due is None else min(due, sweep)
        self._look_at = asyncio.get_running_loop().time() + pause
        return pause

    async def _find_lost_claims(self) -> None:
        """After a claim whose answer was lost: give back what is ours and runs nowhere.

        A hand-on whose commit is in flight looks the same for a moment, hence the second look.
        """
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            first = {t.id for t in await patiently(lambda: self._tasks.held_by(self.id))}
            lost = {id_ for id_ in first if id_ not in self._chains}
            if not lost:
                continue
            await asyncio.sleep(LOST_CLAIM)
            for task in await patiently(lambda: self._tasks.held_by(self.id)):
                if task.id in lost and task.id not in self._chains:
                    await self._chains.give_back(task)

"""The heart of a worker: its lease and its life sign, in a thread of their own.

A step that blocks the event loop must not look like a dead worker, so none of this runs there. The
thread has two connections: one beats (renews the lease, asks what is new) and holds the life sign;
the other waits on the life sign of a neighbour, in a ring over all workers, and rescues what the
neighbour held when it is gone. A look around for all that are dead has a third one for as long as
it lasts: it may take its time, and no beat waits for it.

A worker that cannot beat stops its steps shortly before its lease ends: from then on a peer may
run them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any

import asyncpg

from ekiden import telemetry
from ekiden.errors import DatabaseError
from ekiden.store.connection import UNREACHABLE, connect
from ekiden.store.workers import Beat, Workers, take_life_sign, wait_for_death
from ekiden.worker.rescuer import FULL_LOOK, LATER_LOOK, SECOND_LOOK, Rescuer

BEAT = 12.0  # seconds between beats at most; an idle worker stays under 0.1 transactions a second
WATCH = 30  # seconds that one wait on a neighbour lasts, and its snapshot
_ANSWER = 5.0  # seconds in which a beat must be answered
_LOOK = 60.0  # seconds that each statement of a look around may take
_SETTLING = 10.0  # seconds after our own connection broke, in which a peer's may just be back later
_MAX_PAUSE = 2.0
_TROUBLE = (DatabaseError, asyncpg.PostgresError, *UNREACHABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What a worker says of itself with each beat."""

    worker_id: int
    state: str
    flow_ids: list[int]
    running: dict[int, int] = field(default_factory=dict)  # attempts, by task id


class Heart:
    """Beats until stopped.

    Args:
        dsn: where to connect, not through a pooler; asked again, in the event loop that started
            the heart, when the database is lost: an embedded server may have to be started.
        lease: how long the worker's claims hold without a beat.
        pulse: what to say; called in the heart's thread.
        on_beat: told what a beat brought; called in the event loop that started the heart.
        on_fence: the lease is about to end unrenewed; called there too.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        *,
        lease: timedelta,
        pulse: Callable[[], Pulse],
        on_beat: Callable[[Beat], None],
        on_fence: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._address = ""
        self._lease = lease
        self._every = min(BEAT, lease.total_seconds() / 5)
        self._pulse = pulse
        self._on_beat = on_beat
        self._on_fence = on_fence
        self._thread: threading.Thread | None = None
        self._inner: asyncio.AbstractEventLoop | None = None
        self._begun: asyncio.Future[None] | None = None
        self._sign: int | None = None  # whose life sign our connection holds
        self._connection: asyncpg.Connection | None = None
        self._neighbour: int | None = None
        self._settled_at = 0.0
        self._good_until = 0.0
        self._fenced = False

    async def start(self) -> None:
        """Begin; return after the first beat, or the first that failed."""
        self._outer = asyncio.get_running_loop()
        self._address = self._dsn()
        # Kept here as well: the thread forgets it, and may be quicker than this coroutine.
        begun = self._begun = self._outer.create_future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live()), name="heart", daemon=True
        )
        self._thread.start()
        await begun

    async def stop(self) -> None:
        """Stop and let the life sign go."""
        if self._inner is not None and self._thread is not None:
            with suppress(RuntimeError):  # it ended by itself
                self._inner.call_soon_threadsafe(self._stopping.set)
            await asyncio.to_thread(self._thread.join)

    def beat_now(self) -> None:
        """Beat at once; from any thread."""
        if self._inner is not None:
            with suppress(RuntimeError):
                self._inner.call_soon_threadsafe(self._wake.set)

    # -- in the thread ------------------------------------------------------------------------

    async def _live(self) -> None:
        self._inner = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # the neighbour is another one
        self._good_until = monotonic() + self._lease.total_seconds()
        self._suspicion = asyncio.Event()
        work = [
            asyncio.create_task(w())
            for w in (self._beat, self._guard, self._watch, self._look_around)
        ]
        await self._stopping.wait()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        if self._connection is not None:
            with suppress(*_TROUBLE):
                await self._connection.close(timeout=1)

    def _ask_again(self) -> None:
        """Learn where the database is now; in the outer loop."""
        with suppress(DatabaseError):
            self._address = self._dsn()

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the outer loop has ended
            self._outer.call_soon_threadsafe(what, *args)

    async def _beat(self) -> None:
        pause = 0.05
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(_ANSWER):
                    beat = await self._ask(await self._connected())
                pause, wait = 0.05, self._every
                self._tell(self._on_beat, beat)
                if beat.deaths:
                    self._suspicion.set()
            except _TROUBLE as error:
                wait = pause
                pause = min(pause * 2, _MAX_PAUSE)
                self._let_go()
                self._tell(self._ask_again)
                telemetry.emit("database_lost", error=str(error), next_try_s=round(wait, 2))
            if self._begun is not None:
                self._tell(_resolve, self._begun)
                self._begun = None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _ask(self, connection: asyncpg.Connection) -> Beat:
        pulse = self._pulse()
        asked = monotonic()
        if self._sign != pulse.worker_id:
            # A new connection, or a new identity. What the old backend still holds of us, when
            # the network swallowed the last connection, leaves the lease to judge by.
            held = await take_life_sign(connection, pulse.worker_id)
            self._sign = pulse.worker_id if held else None
        beat = await Workers(connection, self._address).beat(
            pulse.worker_id,
            lease=self._lease,
            busy=len(pulse.running),
            state=pulse.state,
            flow_ids=pulse.flow_ids,
            running=pulse.running,
        )
        # From when we asked: PostgreSQL counts from later, so ours ends first.
        self._good_until = asked + self._lease.total_seconds()
        self._fenced = False
        if beat.neighbour != self._neighbour:
            self._neighbour = beat.neighbour
            self._moved.set()
        return beat

    async def _guard(self) -> None:
        """Stop the worker's steps when its lease is about to end, whatever the beat waits for."""
        margin = min(5.0, self._lease.total_seconds() / 3)
        while True:
            left = self._good_until - margin - monotonic()
            if left > 0 or self._fenced:
                await asyncio.sleep(max(left, margin))
                continue
            self._fenced = True
            self._tell(self._on_fence)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            if self._connection is not None:
                self._let_go()
            self._connection = await connect(self._address)
            self._connection.add_termination_listener(lambda _c: self._wake.set())
        return self._connection

    def _let_go(self) -> None:
        """Give the connection up; a peer's may have broken with it."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._sign = None
        self._settled_at = monotonic() + _SETTLING

    async def _watch(self) -> None:
        """Wait on the neighbour's life sign, and rescue when it goes."""
        connection: asyncpg.Connection | None = None
        try:
            while True:
                if self._neighbour is None:
                    self._moved.clear()
                    await self._moved.wait()
                    continue
                try:
                    if connection is None or connection.is_closed():
                        connection = await connect(
                            self._address, settings={"lock_timeout": f"{WATCH}s"}
                        )
                    if await self._gone(connection, self._neighbour):
                        await self._rescue(connection)
                        self._wake.set()  # who is the next?
                        await asyncio.sleep(0.02)
                except _TROUBLE:
                    if connection is not None:
                        connection.terminate()
                    connection = None
                    await asyncio.sleep(1)
        finally:
            if connection is not None:
                connection.terminate()

    async def _gone(self, connection: asyncpg.Connection, neighbour: int) -> bool:
        """Whether the neighbour's life sign went while it was our neighbour."""
        self._moved.clear()
        waiting = asyncio.create_task(wait_for_death(connection, neighbour))
        moved = asyncio.create_task(self._moved.wait())
        try:
            await asyncio.wait(
                {waiting, moved}, timeout=WATCH + _ANSWER, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                return waiting.result()
            if not self._moved.is_set():
                connection.terminate()  # no answer within its own timeout: a half-open socket
            return False
        finally:
            moved.cancel()
            waiting.cancel()  # asyncpg asks PostgreSQL to stop the wait
            await asyncio.gather(waiting, moved, return_exceptions=True)

    async def _look_around(self) -> None:
        """Look for the dead and what they left: at first, now and then, and when a beat saw one."""
        # PostgreSQL would go on with a statement that nobody waits for any more.
        settings = {"statement_timeout": f"{_LOOK:g}s"}
        while True:
            self._suspicion.clear()
            try:
                connection = await connect(self._address, settings=settings)
                try:
                    await self._rescue(connection)
                finally:
                    connection.terminate()
            except _TROUBLE as error:
                telemetry.emit("database_lost", error=str(error), next_try_s=FULL_LOOK)
            with suppress(TimeoutError):
                async with asyncio.timeout(FULL_LOOK):
                    await self._suspicion.wait()

    async def _rescue(self, connection: asyncpg.Connection) -> None:
        own = self._pulse().worker_id
        # When PostgreSQL itself went away so did every life sign; give the others time to be back.
        patience = max(SECOND_LOOK, self._settled_at - monotonic())
        rescuer = Rescuer(Workers(connection, self._address), own_id=lambda: own)
        async with asyncio.timeout(patience + _LOOK):
            if await rescuer.look(patience):
                # What was on its way when they died may have handed on to them since.
                asyncio.get_running_loop().call_later(LATER_LOOK, self._suspicion.set)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

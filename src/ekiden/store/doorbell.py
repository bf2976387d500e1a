"""The one LISTEN connection of a process, fanned out to whoever waits.

A doorbell is a hint: that there is something to do, never the data and never the truth. It can be
lost, so after every (re)connect each subscriber is told to look at everything, and nobody relies on
it alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog

from ekiden.store.connection import connect

log = structlog.get_logger(__name__)

LOOK_AT_EVERYTHING = ""
PROBE = "ekiden_probe"  # rung to prove that the listener hears; workers' heartbeats ring it too
_QUIET = 12.5  # seconds without a sound after which it is proved again; a heartbeat comes every 12
_ECHO = 1.5  # seconds in which the bell must be heard
_DEAF_PAUSE = 60.0  # seconds until a connection that cannot listen is tried again
_MAX_PENDING = 1000  # a subscriber this far behind is told to look at everything instead
_MAX_PAUSE = 10.0  # seconds between attempts to connect again


class Subscription:
    """One subscriber's pending payloads."""

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._event = asyncio.Event()

    def put(self, payload: str) -> None:
        """Add a payload; called by the doorbell."""
        if len(self._pending) >= _MAX_PENDING:
            self._pending = [LOOK_AT_EVERYTHING]
        else:
            self._pending.append(payload)
        self._event.set()

    async def wait(self, timeout: float | None = None) -> list[str]:
        """Return what was heard since the last call; wait for it up to ``timeout`` seconds.

        An empty list means that nothing came; ``""`` among the payloads means that some may have
        been missed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        heard, self._pending = self._pending, []
        return heard


class Doorbell:
    """Listens on one connection of its own and rings every subscriber.

    That it hears is proved, not assumed: after each connect, and whenever it was quiet for a while,
    it is rung from another connection. A half-open socket hears nothing and is given up; nor does
    a connection through a transaction pooler, and then ``listening`` stays False: look instead.

    Args:
        dsn: asked again before every connect, since an embedded server may have moved.
    """

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn
        self._subscribers: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection | None = None
        self._listening = asyncio.Lock()  # a connection does one thing at a time
        self._broken = asyncio.Event()
        self._heard = asyncio.Event()
        self._heard_at = 0.0  # by the clock of the loop
        self._deaf = False  # it was said that it cannot listen
        self.connected = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Whether there is a connection, and it hears."""
        return self.connected.is_set()

    async def __aenter__(self) -> Doorbell:
        self._task = asyncio.create_task(self._run(), name="doorbell")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reconnect(self) -> None:
        """Give the connection up and open another."""
        self._broken.set()

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[Subscription]:
        """Subscribe to a channel for the length of the ``async with``."""
        subscription = Subscription()
        new = channel not in self._subscribers
        self._subscribers.setdefault(channel, set()).add(subscription)
        if new:
            async with self._listening:
                if self._connection is not None:
                    try:
                        await self._listen(self._connection, channel)
                    except Exception:  # noqa: BLE001 - whatever it is, another connection is due
                        self._broken.set()
        # What happened between "I looked" and "I listen" was not heard.
        subscription.put(LOOK_AT_EVERYTHING)
        try:
            yield subscription
        finally:
            self._subscribers[channel].discard(subscription)

    async def _listen(self, connection: asyncpg.Connection, channel: str) -> None:
        await connection.add_listener(channel, self._hear)

    def _hear(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._heard.set()
        self._heard_at = asyncio.get_running_loop().time()
        for subscription in self._subscribers.get(channel, ()):
            subscription.put(str(payload))

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._session()
                pause = 0.1
            except Exception as error:  # noqa: BLE001 - without it the whole process is deaf
                log.warning("doorbell_lost", error=str(error), next_try_s=round(pause, 1))
            # Jitter, so that a hundred processes do not knock at once when the server is back.
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
            pause = min(pause * 2, _MAX_PAUSE)

    async def _session(self) -> None:
        """Connect, listen, and stay until the connection is gone or deaf."""
        self._broken.clear()
        connection = await connect(self._dsn())
        try:
            connection.add_termination_listener(lambda _c: self._broken.set())
            async with self._listening:
                for channel in {PROBE, *self._subscribers}:
                    await self._listen(connection, channel)
                # Still under the lock: whoever subscribes from here on listens by himself.
                self._connection = connection
            if not await self._hears():
                await self._wait_deaf()
                return
            self._deaf = False
            self.connected.set()
            for subscriptions in self._subscribers.values():
                for subscription in subscriptions:
                    subscription.put(LOOK_AT_EVERYTHING)
            await self._listen_on()
        finally:
            self._connection = None
            self.connected.clear()
            connection.terminate()

    async def _listen_on(self) -> None:
        """Return when the connection is gone, or hears nothing any more."""
        clock = asyncio.get_running_loop().time
        while not self._broken.is_set():
            if clock() < self._heard_at + _QUIET:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._heard_at + _QUIET):
                        await self._broken.wait()
            elif not await self._hears():
                log.warning("doorbell_lost", error="it heard nothing any more", next_try_s=0)
                return

    async def _hears(self) -> bool:
        """Ring from another connection, and say whether it was heard here.

        Raises:
            TimeoutError: it could not even be rung.
        """
        self._heard.clear()
        async with asyncio.timeout(_ECHO):
            ringer = await connect(self._dsn())
            try:
                # The plain protocol: old poolers know no prepared statements.
                await ringer.execute(f"NOTIFY {PROBE}")
            finally:
                ringer.terminate()
        try:
            async with asyncio.timeout(_ECHO):
                await self._heard.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_deaf(self) -> None:
        """Say that there is no listening here, once, and wait before it is tried again."""
        if not self._deaf:
            self._deaf = True
            log.warning(
                "doorbell_deaf",
                error="LISTEN is not heard here. Is a transaction pooler in between? Set "
                "EKIDEN_LISTEN_URL to the database itself. Until then Ekiden looks every "
                "WORKER_POLL_INTERVAL.",
                next_try_s=_DEAF_PAUSE,
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(_DEAF_PAUSE):
                await self._broken.wait()

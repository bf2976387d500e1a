"""The one LISTEN connection of a process, fanned out to whoever waits.

A doorbell is a hint: that there is something to do, never the data and never the truth. It can be
lost, so after every (re)connect each subscriber is told to look at everything, and nobody relies on
it alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog

from ekiden.errors import DatabaseError
from ekiden.store.connection import connect

log = structlog.get_logger(__name__)

LOOK_AT_EVERYTHING = ""
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

    Args:
        dsn: asked again before every connect, since an embedded server may have moved.
        on_connect: runs on the fresh connection before anyone is rung, e.g. to take the
            worker's life sign.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        *,
        on_connect: Callable[[asyncpg.Connection], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._dsn = dsn
        self._on_connect = on_connect
        self._subscribers: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection | None = None
        self._listening = asyncio.Lock()  # a connection does one thing at a time
        self._broken = asyncio.Event()
        self.connected = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Whether there is a connection to hear on."""
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
                    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
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
        for subscription in self._subscribers.get(channel, ()):
            subscription.put(str(payload))

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._session()
                pause = 0.1
            except (DatabaseError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("doorbell_lost", error=str(error), next_try_s=round(pause, 1))
            # Jitter, so that a hundred processes do not knock at once when the server is back.
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
            pause = min(pause * 2, _MAX_PAUSE)

    async def _session(self) -> None:
        """Connect, listen, and stay until the connection is gone."""
        self._broken.clear()
        connection = await connect(self._dsn())
        try:
            connection.add_termination_listener(lambda _c: self._broken.set())
            if self._on_connect is not None:
                await self._on_connect(connection)
            async with self._listening:
                for channel in list(self._subscribers):
                    await self._listen(connection, channel)
                # Still under the lock: whoever subscribes from here on listens by himself.
                self._connection = connection
            self.connected.set()
            for subscriptions in self._subscribers.values():
                for subscription in subscriptions:
                    subscription.put(LOOK_AT_EVERYTHING)
            await self._broken.wait()
        finally:
            self._connection = None
            self.connected.clear()
            connection.terminate()

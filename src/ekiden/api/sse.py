"""Events as they happen: the history of a session as server-sent events.

The doorbell says only that a session changed; what changed is read from the events table, from
where the reader was. So nothing is missed however many bells are lost, and a reader that comes back
with Last-Event-ID goes on exactly there. What running calls say goes along as events without an id,
numbered by attempt and piece. So does what is to be said of the stream itself: that it is alive,
that the database is away, and that it is back.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Protocol, TypeVar

import structlog
from fastapi.sse import format_sse_event

from ekiden.api.problems import Refusal
from ekiden.api.settings import ApiSettings
from ekiden.api.shown_progress import EventShown, PartialShown
from ekiden.core.model import SessionState
from ekiden.errors import DatabaseError
from ekiden.store.partials import CallKey
from ekiden.store.sessions import Sessions

T = TypeVar("T")

log = structlog.get_logger(__name__)

CHANNEL = "session_changed"
LOGOUTS = "login_ended"
ALL = "*"  # watched by who wants to know that any session changed
# After these the session may be over, unless somebody takes it up again.
LAST_EVENTS = frozenset(
    {"session_completed", "session_cancelled", "session_archived", "session_unarchived"}
)
_OVER = (SessionState.COMPLETED, SessionState.CANCELLED)
_BATCH = 500

# Of the stream itself. Events, for a browser passes comments on to nobody.
_ALIVE = format_sse_event(event="alive", data_str="{}")
_AWAY = format_sse_event(event="away", data_str="{}")
_BACK = format_sse_event(event="back", data_str="{}")


class SubscriptionLike(Protocol):
    """What was heard on one channel."""

    async def wait(self, timeout: float | None = None) -> list[str]:
        """Return what was heard since the last call; ``""`` says to look at everything."""


class DoorbellLike(Protocol):
    """Where changes are heard of: ``ekiden.store.doorbell.Doorbell``."""

    @property
    def listening(self) -> bool:
        """Whether anything can be heard now."""

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[SubscriptionLike]:
        """Subscribe to a channel for the length of the ``async with``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What opened a stream, if neither the key did nor anybody may."""

    name: str  # tells one from another; opens nothing
    ends: float  # seconds since 1970


class Watch:
    """One open stream: its bell, and how long it may go on."""

    def __init__(self, login: Login | None) -> None:
        self.bell = asyncio.Event()
        self.login = login
        self._ends = math.inf if login is None else login.ends

    @property
    def left(self) -> float:
        """Seconds until the login that opened it ends; none once it has."""
        return self._ends - time.time()

    def end(self) -> None:
        """End it now."""
        self._ends = -math.inf
        self.bell.set()


class Watchers:
    """Everyone who watches a session: one subscription for the process, fanned out by session."""

    def __init__(self, doorbell: DoorbellLike, settings: ApiSettings) -> None:
        self._doorbell = doorbell
        self._settings = settings
        self._watches: dict[str, set[Watch]] = {}
        self._asked: dict[Hashable, asyncio.Task[Any]] = {}
        self._rung: dict[str, int] = {}  # the number of each watched session's last ring
        self._numbers = count(1)
        self._kept: dict[str, dict[Hashable, Any]] = {}
        self.count = 0
        self.closed = False

    async def run(self) -> None:
        """Pass on what the doorbell says until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear_changes(), name="api-changes")
            group.create_task(self._hear_logouts(), name="api-logouts")

    async def _hear_changes(self) -> None:
        async with self._doorbell.subscribe(CHANNEL) as subscription:
            while True:
                for payload in await subscription.wait(None):
                    for session_id in payload.split(",") if payload else list(self._watches):
                        self._ring(session_id)
                    self._ring(ALL)

    async def _hear_logouts(self) -> None:
        async with self._doorbell.subscribe(LOGOUTS) as subscription:
            while True:
                # What was missed (an empty payload) ends when the login's time is over.
                for login in filter(None, await subscription.wait(None)):
                    self.end(login)

    def end(self, login: str) -> None:
        """End the streams that a login of this name opened."""
        for watch in chain.from_iterable(self._watches.values()):
            if watch.login is not None and watch.login.name == login:
                watch.end()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.closed = True
        for session_id in list(self._watches):
            self._ring(session_id)

    async def ask(
        self, session_id: str, key: Hashable, question: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """Ask the database; who asks the same of a watched session meanwhile gets the same answer.

        A session with a thousand watchers is read once a change, not a thousand times.
        """
        # An answer from before the last ring may lack what it rang for.
        key = (session_id, self._rung.get(session_id), key)
        asked: asyncio.Task[T] | None = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(question())
            asked.add_done_callback(lambda task: self._answered(key, task))
        return await asyncio.shield(asked)  # one who goes away takes no other's answer along

    def _answered(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # who asked was told, or has gone

    def kept(self, session_id: str) -> dict[Hashable, Any]:
        """Return what is kept of a session while somebody watches it."""
        return self._kept.setdefault(session_id, {}) if session_id in self._watches else {}

    def _ring(self, session_id: str) -> None:
        if watches := self._watches.get(session_id):
            self._rung[session_id] = next(self._numbers)
            for watch in watches:
                watch.bell.set()

    @contextmanager
    def watch(self, session_id: str, login: Login | None = None) -> Iterator[Watch]:
        """Give a watch whose bell is set whenever the session changed."""
        watch = Watch(login)
        if session_id not in self._watches:
            self._watches[session_id] = set()
            self._rung[session_id] = next(self._numbers)
        self._watches[session_id].add(watch)
        self.count += 1
        try:
            yield watch
        finally:
            self.count -= 1
            watches = self._watches[session_id]
            watches.discard(watch)
            if not watches:
                del self._watches[session_id], self._rung[session_id]
                self._kept.pop(session_id, None)

    def watching(self, session_id: str) -> int:
        """Return how many streams of this session are open here."""
        return len(self._watches.get(session_id, ()))

    def check_room(self) -> None:
        """Refuse one stream too many, while that can still be said with a status.

        Raises:
            Refusal: 503, too many watch already.
        """
        if self.count >= self._settings.max_streams:
            raise Refusal(
                503,
                "too-many-streams",
                f"{self.count} event streams are open, which is the most there may be.",
                headers={"Retry-After": "10"},
            )

    def patience(self) -> float:
        """Return how long to trust the doorbell's silence: jittered seconds."""
        longest = self._settings.sweep if self._doorbell.listening else self._settings.poll
        return longest * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, guards nothing

    @property
    def listening(self) -> bool:
        """Whether changes are heard of at once; else they are looked for now and then."""
        return self._doorbell.listening

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life."""
        return self._settings.heartbeat


class Looks(Protocol):
    """Who reads a session again and again, and knows what they have seen."""

    ended: bool  # nothing will come any more

    def look(self) -> AsyncIterator[bytes]:
        """Yield what is new.

        Raises:
            DatabaseError: it cannot be read now; the next look goes on where this one stopped.
        """


class Reader:
    """Looks at a session's events, and at what its running calls say."""

    def __init__(self, sessions: Sessions, watchers: Watchers, session_id: str, after: int) -> None:
        self._sessions = sessions
        self._watchers = watchers
        self._session_id = session_id
        self._after = after  # the last event
        self._heard: dict[CallKey, int] = {}  # the last piece of each call that may say more
        self._over = False  # a last event was seen
        self.ended = False

    async def look(self) -> AsyncIterator[bytes]:
        """Yield events, then pieces of text."""
        async for block in self._events():
            yield block
        if not self.ended:
            async for block in self.partials():
                yield block

    async def _events(self) -> AsyncIterator[bytes]:
        while True:
            batch = await self._watchers.ask(
                self._session_id,
                ("events", self._after),
                lambda: _read_events(self._sessions, self._session_id, self._after),
            )
            for event_id, type_, block in batch:
                self._after = event_id
                self._over = self._over or type_ in LAST_EVENTS
                yield block
            if len(batch) < _BATCH:
                break
        if self._over:
            session = await self._sessions.get(self._session_id)
            self.ended = self._over = session.status in _OVER

    async def partials(self) -> AsyncIterator[bytes]:
        """Yield what running calls have said since the last look."""
        while True:
            look = await self._watchers.ask(
                self._session_id,
                ("said", frozenset(self._heard.items())),
                lambda: self._sessions.partials.follow(self._session_id, dict(self._heard)),
            )
            for piece in look.chunks:
                self._heard[piece.task_id, piece.attempt, piece.call] = piece.seq
                shown = PartialShown.model_validate(piece)
                # Without an id: Last-Event-ID stays the last event's.
                yield format_sse_event(data_str=shown.model_dump_json(), event="partial")
            if look.complete:
                self._heard = {k: n for k, n in self._heard.items() if k[:2] in look.running}
                return


async def _read_events(
    sessions: Sessions, session_id: str, after: int
) -> list[tuple[int, str, bytes]]:
    """Return events as they are sent, with the id and type of each."""
    read = []
    for event in await sessions.events(session_id, after=after, limit=_BATCH):
        shown = EventShown.model_validate(event)
        block = format_sse_event(
            data_str=shown.model_dump_json(), event=event.type, id=str(event.id)
        )
        read.append((event.id, event.type, block))
    return read


async def stream(
    sessions: Sessions, watchers: Watchers, session_id: str, after: int
) -> AsyncIterator[bytes]:
    """Yield a session's events after the id ``after``, first those there are, then as they come.

    In between comes what running calls say, from its beginning. Ends after the session's last
    event, or when the server stops.
    """
    reader = Reader(sessions, watchers, session_id, after)
    async for block in follow(reader, watchers, session_id):
        yield block


async def follow(
    reader: Looks,
    watchers: Watchers,
    session_id: str,
    *,
    login: Login | None = None,
    pause: float = 0.0,
) -> AsyncIterator[bytes]:
    """Yield what a reader sees at a session, look after look, until it has ended.

    Args:
        reader: what is looked at.
        watchers: where changes are heard of.
        session_id: the session.
        login: what the stream was opened with, if with a login: it ends when that does.
        pause: seconds from one look to the next at least: a burst of changes is one look.
    """
    with watchers.watch(session_id, login) as watch:
        yield format_sse_event(comment=f"events of session {session_id}", retry=2000)
        clock = asyncio.get_running_loop().time
        bell, away = watch.bell, False
        while not watchers.closed and watch.left > 0:
            bell.clear()  # before looking: what changes while we look rings again
            looked_at = clock()
            try:
                async for block in reader.look():
                    yield block
                if away:
                    away = False
                    yield _BACK
                if reader.ended:
                    return
            except DatabaseError as error:
                # The stream outlives the database: the doorbell rings when it is back.
                log.warning("events_unread", session_id=session_id, error=error.message)
                if not away:
                    away = True
                    yield _AWAY
            except Exception:
                # Ours. Who watches comes again, and would as fast as before.
                log.exception("stream_broken", session_id=session_id)
                yield format_sse_event(comment="this cannot be shown; see the log", retry=30_000)
                return
            listening, look_at = watchers.listening, clock() + watchers.patience()
            while not bell.is_set() and (left := min(look_at - clock(), watch.left)) > 0:
                try:
                    async with asyncio.timeout(min(left, watchers.heartbeat)):
                        await bell.wait()
                except TimeoutError:
                    yield _ALIVE
                    if watchers.listening != listening:
                        break  # silence means another thing now
            if pause and (early := looked_at + pause - clock()) > 0:
                await asyncio.sleep(early)


async def stream_of_all(
    watchers: Watchers, *, login: Login | None = None, pause: float = 1.0
) -> AsyncIterator[bytes]:
    """Yield ``changed`` when any session changed, no more often than every ``pause`` seconds.

    It says nothing else: who hears it asks for what they show. Opened with a login it ends with it.
    """
    clock = asyncio.get_running_loop().time
    with watchers.watch(ALL, login) as watch:
        yield format_sse_event(comment="changes of all sessions", retry=2000)
        listening, look_at = watchers.listening, clock() + watchers.patience()
        while not watchers.closed and watch.left > 0:
            longest = min(watchers.heartbeat, max(look_at - clock(), 0.05), watch.left)
            try:
                async with asyncio.timeout(longest):
                    await watch.bell.wait()
            except TimeoutError:
                if clock() < look_at and watchers.listening == listening:
                    yield _ALIVE
                    continue
            watch.bell.clear()
            yield format_sse_event(data_str="", event="changed")
            listening, look_at = watchers.listening, clock() + watchers.patience()
            await asyncio.sleep(pause)

"""Follows one session: what changed, the moment it changes, whoever runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ekiden.core.model import Event
from ekiden.errors import DatabaseUnreachable
from ekiden.store.doorbell import Doorbell, Subscription
from ekiden.store.sessions import Sessions

_SWEEP = 15.0  # seconds between looks that nothing asked for, while the bell works
_POLL = 1.0  # the same while it does not
_PACE = 0.05  # seconds between looks at most: a person sees no more, a fast flow does more
_MAX_PAUSE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The session now, and what has happened since the last look."""

    progress: dict[str, Any]
    events: list[Event]


def is_at_rest(progress: dict[str, Any]) -> bool:
    """Return whether nothing goes on until a person acts, or ever."""
    return progress["requiresManualTrigger"] or progress["status"] in {
        "COMPLETED", "FAILED", "CANCELLED",
    }  # fmt: skip


class Follower:
    """Looks at a session whenever its bell rings.

    Args:
        sessions: where it is kept.
        doorbell: tells that it changed.
        session_id: which one, in canonical form.
        lost: hears why the database cannot be asked, once each time it is lost.
    """

    def __init__(
        self,
        sessions: Sessions,
        doorbell: Doorbell,
        session_id: str,
        *,
        lost: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._doorbell = doorbell
        self._session_id = session_id
        self._lost = lost
        self._after = 0

    async def skip(self) -> dict[str, Any]:
        """Pass over what has happened so far and return the progress."""
        while batch := await self._sessions.events(self._session_id, after=self._after):
            self._after = batch[-1].id
        return await self._sessions.progress(self._session_id)

    async def changes(self) -> AsyncIterator[Seen]:
        """Yield the session now and then at every change, without end."""
        async with self._doorbell.subscribe("session_changed") as bell:
            while True:
                yield await self._look()
                await asyncio.sleep(_PACE)
                await self._rung(bell)

    async def _rung(self, bell: Subscription) -> None:
        """Return when the session may have changed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (_SWEEP if self._doorbell.listening else _POLL)
        while (left := until - loop.time()) > 0:
            for payload in await bell.wait(left):
                if not payload or self._session_id in payload:
                    return

    async def _look(self) -> Seen:
        pause = 0.2
        while True:
            try:
                events: list[Event] = []
                while batch := await self._sessions.events(self._session_id, after=self._after):
                    events += batch
                    self._after = batch[-1].id
                progress = await self._sessions.progress(self._session_id)
                return Seen(progress=progress, events=events)
            except DatabaseUnreachable as error:
                # The session goes on elsewhere, or will; so does looking at it.
                if pause == 0.2:
                    self._lost(f"{error.message}. Trying again.")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE)

"""What a stream says of itself: that the database is away, that it is back, that it is alive."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from ekiden.api.settings import ApiSettings
from ekiden.api.sse import Watchers, follow, stream_of_all
from ekiden.errors import DatabaseUnreachable
from tests.api.relay import SilentDoorbell

PATIENCE = 10


class Looks:
    """A reader that the database is away for, at some of its looks."""

    def __init__(self, *, away: frozenset[int] = frozenset(), last: int) -> None:
        self.ended = False
        self._away = away
        self._last = last
        self._looks = 0

    async def look(self) -> AsyncIterator[bytes]:
        self._looks += 1
        if self._looks in self._away:
            raise DatabaseUnreachable
        self.ended = self._looks == self._last
        yield f"event: look\ndata: {self._looks}\n\n".encode()


class Doorbell(SilentDoorbell):
    listening = True


async def heard(
    stream: AsyncIterator[bytes], then: Callable[[str], bool] | None = None
) -> list[str]:
    """Return the names of a stream's events until it ends, or until something is so."""
    names: list[str] = []
    async with asyncio.timeout(PATIENCE):
        async for block in stream:
            for name in re.findall(rb"event: (\w+)", block):
                names.append(name.decode())
                if then and then(names[-1]):
                    return names
    return names


async def test_that_the_database_is_away_is_told_once_and_that_it_is_back_as_well():
    watchers = Watchers(SilentDoorbell(), ApiSettings(poll=0.01))
    reader = Looks(away=frozenset({1, 2, 4}), last=5)
    names = await heard(follow(reader, watchers, "s"))
    assert [n for n in names if n != "alive"] == ["away", "look", "back", "away", "look", "back"]


async def test_a_doorbell_that_goes_silent_makes_a_session_be_looked_at():
    doorbell = Doorbell()
    watchers = Watchers(doorbell, ApiSettings(heartbeat=0.01, sweep=3600, poll=3600))
    stream = follow(Looks(last=2), watchers, "s")

    def goes_silent(name: str) -> bool:
        doorbell.listening = name != "alive"
        return False

    names = await heard(stream, goes_silent)
    assert names == ["look", "alive", "look"]


async def test_a_doorbell_that_goes_silent_makes_lists_be_asked_for():
    doorbell = Doorbell()
    watchers = Watchers(doorbell, ApiSettings(heartbeat=0.01, sweep=3600, poll=3600))

    def goes_silent(name: str) -> bool:
        doorbell.listening = name != "alive"
        return name == "changed"

    names = await heard(stream_of_all(watchers), goes_silent)
    assert names == ["alive", "changed"]

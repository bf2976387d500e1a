"""Waiting for a database that cannot for now: with back-off and jitter, and saying so.

A restart, a failover, a full disk, a timeout: nothing of that is the fault of what is being stored,
so nothing of it may fail a step.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ekiden import telemetry
from ekiden.errors import DatabaseError, DatabaseUnreachable

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_MAX_PAUSE = 5.0
_REFUSALS = 5  # in a row, of a database that is there


class Patience:
    """One wait for the database, over any number of tries.

    Attributes:
        tries: how many have failed so far.
    """

    def __init__(self) -> None:
        self.tries = 0
        self._pause = _FIRST_PAUSE
        self._since = 0.0

    async def wait(self, error: BaseException) -> None:
        """Say that a try failed, and return when the next is due."""
        self.tries += 1
        if self.tries == 1:
            self._since = asyncio.get_running_loop().time()
        said = str(error) or type(error).__name__
        telemetry.emit("database_lost", error=said, next_try_s=round(self._pause, 2))
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        self._pause = min(self._pause * 2, _MAX_PAUSE)

    def over(self) -> None:
        """Say that it is over, if there was anything to wait for."""
        if self.tries:
            lasted = asyncio.get_running_loop().time() - self._since
            telemetry.emit("database_back", after_s=round(lasted, 3))


async def patiently(action: Callable[[], Awaitable[T]], *, refusals: int | None = _REFUSALS) -> T:
    """Do it, however long the database takes to be there.

    Args:
        action: what to do; repeated until it succeeds.
        refusals: how many in a row of a database that is there are believed; None for none.

    Raises:
        DatabaseError: the database is there and refuses.
    """
    patience, refused = Patience(), 0
    while True:
        try:
            done = await action()
        except DatabaseError as error:
            refused = 0 if isinstance(error, DatabaseUnreachable) else refused + 1
            if refused == refusals:
                raise
            await patience.wait(error)
        else:
            patience.over()
            return done

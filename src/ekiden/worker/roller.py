"""Counts what ended, now and then, while something ends: an idle worker asks for nothing.

The workers share the work by the age of what is counted: whoever looks first takes the turn. What
none of them counts (a review, the last attempt of a worker that is gone) is counted by whoever asks
for metrics.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

from ekiden import telemetry
from ekiden.errors import DatabaseError
from ekiden.store.metrics import Metrics
from ekiden.worker.committer import Times

EVERY = 20.0  # seconds between looks


class Roller:
    """Rolls up while attempts end.

    Args:
        metrics: where.
        ended: how many attempts have ended here so far.
        commits: how long commits took since it was last called; see ``Committer.take_times``.
    """

    def __init__(
        self, metrics: Metrics, *, ended: Callable[[], int], commits: Callable[[], Times]
    ) -> None:
        self._metrics = metrics
        self._ended = ended
        self._commits = commits
        self._counted = 0
        self._once_more = False  # what ended just before the last look was too young for it

    async def run(self, every: float = EVERY) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                await self.look(timedelta(seconds=every / 2))
            except DatabaseError as error:
                self._once_more = True
                telemetry.emit("metrics_uncounted", error=error.message)

    async def look(self, older_than: timedelta = timedelta()) -> None:
        """Roll up if an attempt has ended since, unless a peer has within ``older_than``."""
        ended = self._ended()
        if ended == self._counted and not self._once_more:
            return
        self._once_more = ended != self._counted
        self._counted = ended
        await self.write_commits()
        while await self._metrics.roll_up(older_than=older_than):
            pass  # a turn counts a day at most

    async def write_commits(self) -> None:
        """Add how long commits took here; what cannot be written is let go, never added twice."""
        if times := self._commits():
            await self._metrics.add_commits(times)

"""Counts what nobody has counted yet before metrics are shown, but not longer than one can wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ekiden.store.metrics import Metrics

FRESH = timedelta(seconds=15)
PATIENCE = 2.0  # seconds; what takes longer goes on, and the answer says how far it is counted


class Counting:
    """One roll-up at a time for all requests of this process.

    Args:
        metrics: where.
        fresh: figures this old are shown as they are; None is ``FRESH``.
    """

    def __init__(self, metrics: Metrics, *, fresh: timedelta | None = None) -> None:
        self._metrics = metrics
        self._fresh = fresh
        self._task: asyncio.Task[None] | None = None

    async def catch_up(self) -> None:
        """Return once the past is counted, or patience is at its end.

        Raises:
            DatabaseError: it cannot be counted.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count(), name="counting")
            self._task.add_done_callback(_heard)
        done, _ = await asyncio.wait({self._task}, timeout=PATIENCE)
        for task in done:
            task.result()

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _count(self) -> None:
        fresh = FRESH if self._fresh is None else self._fresh
        while await self._metrics.roll_up(older_than=fresh):
            pass


def _heard(task: asyncio.Task[None]) -> None:
    """Look at an error, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()

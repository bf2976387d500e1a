"""Looks now and then whether something is worth an alert.

One process looks at a time, and a look of a peer's counts as its own. While nothing goes on here
and no alert is open, a look is rare: an idle worker asks for next to nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

from ekiden import telemetry
from ekiden.core.alerts import Limits
from ekiden.errors import DatabaseError
from ekiden.store.alerts import Alerts

EVERY = 30.0  # seconds between looks while something goes on
QUIET = 20  # times that, while nothing does


class Watch:
    """Raises and resolves alerts.

    Args:
        alerts: where.
        limits: from where on there is an alert.
        lively: whether something has gone on here since it was last asked.
    """

    def __init__(self, alerts: Alerts, limits: Limits, *, lively: Callable[[], bool]) -> None:
        self._alerts = alerts
        self._limits = limits
        self._lively = lively
        self._open = False  # an alert must be seen to end, however quiet it is
        self._once_more = True  # what ended just before the last look may not have been counted
        self._left_out = 0

    async def run(self, every: float = EVERY) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            if not self._due():
                continue
            try:
                await self.look(timedelta(seconds=every / 2))
            except DatabaseError as error:
                self._once_more = True
                telemetry.emit("alerts_unread", error=error.message)

    async def look(self, older_than: timedelta = timedelta()) -> None:
        """Look, unless a peer has within ``older_than``."""
        looked = await self._alerts.look(self._limits, older_than=older_than)
        if looked is None:  # a peer sees to what is open, or nothing is
            self._open = False
            return
        self._open = bool(looked.open)
        for reading in looked.raised:
            telemetry.emit(
                "alert_raised", alert=str(reading.kind), subject=reading.subject,
                value=round(reading.value, 4), threshold=self._limits.of(reading.kind),
            )  # fmt: skip
        for alert in looked.resolved:
            telemetry.emit("alert_resolved", alert=alert.kind, subject=alert.subject)

    def _due(self) -> bool:
        lively = self._lively()
        due = lively or self._open or self._once_more or self._left_out >= QUIET
        self._once_more = lively
        self._left_out = 0 if due else self._left_out + 1
        return due

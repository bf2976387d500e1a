"""Takes over what dead workers held.

A worker is dead when its lease is over, or when its life sign (an advisory lock) is gone on two
looks in a row: PostgreSQL frees the lock the moment the connection ends, but a worker that is only
connecting again has none for an instant either. A rescue that was wrong all the same costs a
repeated call, never a wrong result: the attempt number is the fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ekiden import failpoint, telemetry
from ekiden.core.retry import MAX_DEATHS
from ekiden.store.workers import Workers

FULL_LOOK = 240.0  # seconds between looks that nothing asked for
LATER_LOOK = 5.0  # seconds after a rescue until the next look
SECOND_LOOK = 0.3  # seconds until a suspicion is looked at again: time enough to connect again


class Rescuer:
    """Looks for dead workers when it is told to."""

    def __init__(self, workers: Workers, *, own_id: Callable[[], int]) -> None:
        self._workers = workers
        self._own_id = own_id

    async def look(self, patience: float = SECOND_LOOK) -> int:
        """Rescue the tasks of workers that are dead now; return how many workers that were.

        Args:
            patience: seconds that a worker without a life sign gets to be back.
        """
        dead = await self._workers.dead()
        dead.pop(self._own_id(), None)
        if any(not certain for certain in dead.values()):
            await asyncio.sleep(patience)
            again = await self._workers.dead()
            dead = {worker: True for worker in dead if worker in again}
        if not dead:
            return 0
        failpoint.reach("rescue.before")
        failpoint.reach_soon("rescue.sent")
        tasks = await self._workers.rescue(list(dead), max_deaths=MAX_DEATHS)
        telemetry.emit("tasks_rescued", workers=list(dead), tasks=tasks)
        return len(dead)

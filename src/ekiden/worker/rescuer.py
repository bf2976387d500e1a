"""Takes over what dead workers held.

A worker is dead when its lease is over, or when its life sign (an advisory lock on its listening
connection) is gone on two looks in a row: PostgreSQL frees the lock the moment the connection ends,
but a worker that is only connecting again has none for an instant either. A rescue that was wrong
all the same costs a repeated call, never a wrong result: the attempt number is the fence.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ekiden import failpoint, telemetry
from ekiden.core.retry import MAX_DEATHS
from ekiden.errors import DatabaseError
from ekiden.store.workers import Workers

EVERY = 80.0  # seconds between looks
SECOND_LOOK = 1.5  # seconds until a suspicion is looked at again


class Rescuer:
    """Looks for dead workers at the start, and then every minute or so."""

    def __init__(self, workers: Workers, *, own_id: Callable[[], int]) -> None:
        self._workers = workers
        self._own_id = own_id

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except DatabaseError as error:
                telemetry.emit("database_lost", error=str(error), next_try_s=EVERY)
            await asyncio.sleep(EVERY * random.uniform(0.8, 1.2))  # noqa: S311

    async def look(self) -> int:
        """Rescue the tasks of workers that are dead now; return how many tasks that were."""
        dead = await self._workers.dead()
        dead.pop(self._own_id(), None)
        if any(not certain for certain in dead.values()):
            await asyncio.sleep(SECOND_LOOK)
            again = await self._workers.dead()
            dead = {worker: True for worker in dead if worker in again}
        if not dead:
            return 0
        failpoint.reach("rescue.before")
        failpoint.reach_soon("rescue.sent")
        tasks = await self._workers.rescue(list(dead), max_deaths=MAX_DEATHS)
        telemetry.emit("tasks_rescued", workers=list(dead), tasks=tasks)
        return tasks

"""Writes calls to the ledger as they come back, in batches of their own.

An answer in hand is money spent: the writer keeps it until the database takes it, and a call that
has begun is seen to its end in the ledger even when its step is stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from ekiden import telemetry
from ekiden.errors import DatabaseError, DatabaseUnreachable
from ekiden.store.ledger import Call, Ledger
from ekiden.worker.batcher import Batcher
from ekiden.worker.partial_writer import PartialWriter

T = TypeVar("T")

_BATCH = 64
_MAX_PAUSE = 5.0


class LedgerWriter:
    """Batches appends; everything else of the ledger passes through.

    ``partials`` saves what calls say while they run.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.partials = PartialWriter(ledger.partials)
        self._calls: Batcher[Call, None] = Batcher(
            lambda batch: _write(batch, ledger.append), limit=_BATCH, name="ledger"
        )
        self._started: Batcher[tuple[Call, str], None] = Batcher(
            lambda batch: _write(batch, ledger.start), limit=_BATCH, name="started-calls"
        )
        self._making: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begin to write."""
        self._calls.start()
        self._started.start()
        self.partials.start()

    def see_through(self, making: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what makes a call beside the step that waits for it, and outlive that step."""
        task = asyncio.create_task(making)
        self._making.add(task)
        task.add_done_callback(self._made)
        return task

    async def append(self, call: Call) -> None:
        """Return once the call is durable.

        Raises:
            DatabaseError: PostgreSQL refuses this call's values.
        """
        await self._calls.put(replace(call))

    def started(self, call: Call, answer_id: str) -> None:
        """Note the id of an answer that has begun to come; durable a moment later."""
        self._started.put((replace(call), answer_id)).add_done_callback(_heard)

    async def settle(self, call: Call) -> None:
        """Record what became of an answer once it was read."""
        await self.ledger.settle(replace(call))

    async def close(self) -> None:
        """Write what is left."""
        if self._making:
            await asyncio.wait(self._making)
        await self._started.close()
        await self._calls.close()
        await self.partials.close()

    def abort(self) -> None:
        """Stop at once."""
        for task in self._making:
            task.cancel()
        self._started.abort()
        self._calls.abort()
        self.partials.abort()

    def _made(self, task: asyncio.Task[Any]) -> None:
        self._making.discard(task)
        _heard(task)


def _heard(future: asyncio.Future[Any]) -> None:
    """Look at an error, so that nobody complains that nobody did."""
    if not future.cancelled():
        future.exception()


async def _write(
    batch: list[tuple[T, asyncio.Future[None]]], append: Callable[[list[T]], Awaitable[None]]
) -> None:
    """Write a batch however long the database takes; what it refuses, it refuses alone."""
    pause = 0.05
    while batch:
        try:
            await append([item for item, _ in batch])
        except DatabaseUnreachable as error:
            telemetry.emit("database_lost", error=str(error), next_try_s=round(pause, 2))
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
            pause = min(pause * 2, _MAX_PAUSE)
            continue
        except Exception as error:  # noqa: BLE001 - a future left open would hang its session
            if len(batch) > 1 and isinstance(error, DatabaseError):
                half = len(batch) // 2
                await _write(batch[:half], append)
                batch = batch[half:]
                continue
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for _, future in batch:
            if not future.done():
                future.set_result(None)
        return

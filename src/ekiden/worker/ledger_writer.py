"""Writes calls to the ledger as they come back, in batches of their own.

An answer in hand is money spent: the writer keeps it until the database takes it.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from ekiden import telemetry
from ekiden.errors import DatabaseError, DatabaseUnreachable
from ekiden.store.ledger import Call, Ledger
from ekiden.worker.batcher import Batcher

_BATCH = 64
_MAX_PAUSE = 5.0


class LedgerWriter:
    """Batches appends; everything else of the ledger passes through."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._batcher: Batcher[Call, None] = Batcher(self._write, limit=_BATCH, name="ledger")

    def start(self) -> None:
        """Begin to write."""
        self._batcher.start()

    async def append(self, call: Call) -> None:
        """Return once the call is durable.

        Raises:
            DatabaseError: PostgreSQL refuses this call's values.
        """
        await self._batcher.put(call)

    async def settle(self, call: Call) -> None:
        """Record what became of an answer once it was read."""
        await self.ledger.settle(replace(call))

    async def close(self) -> None:
        """Write what is left."""
        await self._batcher.close()

    def abort(self) -> None:
        """Stop at once."""
        self._batcher.abort()

    async def _write(self, batch: list[tuple[Call, asyncio.Future[None]]]) -> None:
        pause = 0.05
        while batch:
            try:
                await self.ledger.append([call for call, _ in batch])
            except DatabaseUnreachable as error:
                telemetry.emit("database_lost", error=str(error), next_try_s=round(pause, 2))
                await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
                pause = min(pause * 2, _MAX_PAUSE)
                continue
            except Exception as error:  # noqa: BLE001 - a future left open would hang its session
                if len(batch) > 1 and isinstance(error, DatabaseError):
                    half = len(batch) // 2
                    await self._write(batch[:half])
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

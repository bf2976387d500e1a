"""Group commit: everything that arrived while the last write was in flight goes with the next.

Adaptive and without a timer: an idle writer writes at once, a busy one writes more at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - item
O = TypeVar("O")  # noqa: E741 - outcome


class Batcher(Generic[I, O]):
    """Collects items and writes them in batches, in order.

    Args:
        write: writes a batch and resolves each item's future; it may take its time, and must not
            raise. What it leaves unresolved is the caller's loss, so it leaves none.
        limit: the most items in one write.
    """

    def __init__(
        self,
        write: Callable[[list[tuple[I, asyncio.Future[O]]]], Awaitable[None]],
        *,
        limit: int,
        name: str,
    ) -> None:
        self._write = write
        self._limit = limit
        self._name = name
        self._items: list[tuple[I, asyncio.Future[O]]] = []
        self._put_back: deque[tuple[I, asyncio.Future[O]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def __len__(self) -> int:
        """Return how many items wait for the next write."""
        return len(self._items)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def put(self, item: I) -> asyncio.Future[O]:
        """Add an item; the future resolves once it is durable."""
        future: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        self._items.append((item, future))
        self._arrived.set()
        return future

    def put_back(self, entry: tuple[I, asyncio.Future[O]]) -> None:
        """Write an entry of a batch later: by itself, after what waits now."""
        self._put_back.append(entry)

    async def close(self) -> None:
        """Write what is left, then stop."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task

    def abort(self) -> None:
        """Stop at once; what is left is not written."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            if not (self._items or self._put_back):
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if self._items:
                batch, self._items = self._items[: self._limit], self._items[self._limit :]
                await self._write(batch)
            if self._put_back:
                await self._write([self._put_back.popleft()])

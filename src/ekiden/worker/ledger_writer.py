"""Writes calls to the ledger as they come back, in batches of their own.

An answer in hand is money spent: the writer keeps it until the database takes it, and a call that
has begun is seen to its end in the ledger even when its step is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

from ekiden.errors import DatabaseError, Interrupted
from ekiden.store.budgets import Budgets
from ekiden.store.ledger import (
    Call,
    CutCall,
    Ledger,
    PaidAnswer,
    Standing,
    StartedCall,
    UnwantedAnswer,
)
from ekiden.worker.batcher import Batcher
from ekiden.worker.partial_writer import PartialWriter
from ekiden.worker.patience import patiently

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - outcome
Nones = list[None]

_BATCH = 64
_NOTED = 2.0  # seconds that a stream waits until its id is durable
_PORTION = 64_000_000  # bytes of requests and answers in one statement; a single call may have more


class LedgerWriter:
    """Batches what every call needs; everything else of the ledger passes through.

    ``partials`` saves what calls say while they run.
    """

    def __init__(self, ledger: Ledger, budgets: Budgets) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self.partials = PartialWriter(ledger.partials)
        self._begun: Batcher[Call, Standing] = Batcher(
            lambda batch: _write(batch, ledger.are_payable), limit=_BATCH, name="begun-calls"
        )
        self._calls: Batcher[Call, None] = Batcher(
            lambda batch: _write_answers(batch, _silent(ledger.append)), limit=_BATCH, name="ledger"
        )
        self._started: Batcher[tuple[Call, str], None] = Batcher(
            lambda batch: _write(batch, _silent(ledger.start)), limit=_BATCH, name="started-calls"
        )
        self._settled: Batcher[Call, None] = Batcher(
            lambda batch: _write(batch, _silent(ledger.settle)), limit=_BATCH, name="settled-calls"
        )
        self._batchers = (self._begun, self._started, self._calls, self._settled)
        self._making: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Begin to write."""
        for batcher in self._batchers:
            batcher.start()
        self.partials.start()

    def see_through(self, making: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what makes a call beside the step that waits for it, and outlive that step."""
        task = asyncio.create_task(making)
        self._making.add(task)
        task.add_done_callback(self._made)
        return task

    async def begin(self, call: Call) -> bool:
        """Return once the database has said that the call's attempt still holds its task.

        Returns:
            Whether the session has a budget by now.

        Raises:
            Interrupted: it does not, so a peer may ask the same: nothing more is paid for here.
        """
        standing = await self._begun.put(call)
        if not standing.held:
            raise Interrupted(
                f"Attempt {call.attempt} no longer holds task {call.task_id}: no call begins."
            )
        return standing.budgeted

    async def reserve(
        self, call: Call, *, phase: int, cost_usd: Decimal | None, tokens: int
    ) -> dict[str, Any] | None:
        """Reserve what a call may cost; return why it may not be made, or None once it may."""
        return await patiently(
            lambda: self._budgets.reserve(call, phase=phase, cost_usd=cost_usd, tokens=tokens),
            refusals=1,
        )

    async def unreserve(self, call: Call) -> None:
        """Take back what was reserved for a call that is not made after all."""
        await patiently(lambda: self._budgets.unreserve(call), refusals=1)

    async def append(self, call: Call) -> None:
        """Return once the call is durable.

        Raises:
            DatabaseError: PostgreSQL refuses this call's values.
        """
        await self._calls.put(replace(call))

    async def started(self, call: Call, answer_id: str) -> None:
        """Note the id of an answer that has begun to come; return once it is durable.

        Without a database for long, the answer itself is not kept waiting.
        """
        noting = self._started.put((replace(call), answer_id))
        noting.add_done_callback(_heard)
        await asyncio.wait({noting}, timeout=_NOTED)

    async def settle(self, call: Call) -> None:
        """Record what became of an answer once it was read."""
        await self._settled.put(replace(call))

    async def next_paid(self, call: Call, taken: Sequence[int]) -> PaidAnswer | None:
        """Return the oldest answer earlier attempts have to this call's request, but ``taken``."""
        return await patiently(lambda: self._ledger.next_paid(call, taken), refusals=1)

    async def useless(self, call: Call) -> list[PaidAnswer]:
        """Return what earlier attempts were answered to this request that was of no use."""
        return await patiently(lambda: self._ledger.useless(call), refusals=1)

    async def next_started(self, call: Call, tried: Sequence[str]) -> StartedCall | None:
        """Return the oldest call of earlier attempts that asked the same and has no answer here."""
        return await patiently(lambda: self._ledger.next_started(call, tried), refusals=1)

    async def note_withdrawn(self, answer: UnwantedAnswer) -> None:
        """Note that the provider of an answer was told that nobody waits for it."""
        await patiently(lambda: self._ledger.note_withdrawn(answer), refusals=1)

    async def next_cut(self, call: Call, taken: Sequence[str]) -> CutCall | None:
        """Return the newest call of earlier attempts that asked the same and was cut."""
        return await patiently(lambda: self._ledger.next_cut(call, taken), refusals=1)

    async def who_has_model(self, task_id: int, provider: str) -> tuple[bool, timedelta]:
        """Return whether a living worker can ask a provider for a task, and how long it waits."""
        return await patiently(lambda: self._ledger.who_has_model(task_id, provider), refusals=1)

    async def close(self) -> None:
        """Write what is left."""
        if self._making:
            await asyncio.wait(self._making)
        for batcher in self._batchers:
            await batcher.close()
        await self.partials.close()

    def abort(self) -> None:
        """Stop at once."""
        for task in self._making:
            task.cancel()
        for batcher in self._batchers:
            batcher.abort()
        self.partials.abort()

    def _made(self, task: asyncio.Task[Any]) -> None:
        self._making.discard(task)
        _heard(task)


def _heard(future: asyncio.Future[Any]) -> None:
    """Look at an error, so that nobody complains that nobody did."""
    if not future.cancelled():
        future.exception()


def _silent(write: Callable[[list[T]], Awaitable[None]]) -> Callable[[list[T]], Awaitable[Nones]]:
    """Return a write that answers None for each item."""

    async def answering(items: list[T]) -> Nones:
        await write(items)
        return [None] * len(items)

    return answering


async def _write_answers(
    batch: list[tuple[Call, asyncio.Future[None]]], append: Callable[[list[Call]], Awaitable[Nones]]
) -> None:
    """Write calls, with not too many bytes in one statement.

    PostgreSQL hangs up on a message of 1 GB, which looks as if it were not there.
    """
    portion: list[tuple[Call, asyncio.Future[None]]] = []
    size = 0
    for call, future in batch:
        more = len(call.answer or b"") + len(call.request)
        if portion and size + more > _PORTION:
            await _write(portion, append)
            portion, size = [], 0
        portion.append((call, future))
        size += more
    await _write(portion, append)


async def _write(
    batch: list[tuple[T, asyncio.Future[O]]], write: Callable[[list[T]], Awaitable[list[O]]]
) -> None:
    """Write a batch; what the database refuses, it refuses alone."""
    try:
        answers = await patiently(lambda: write([item for item, _ in batch]), refusals=1)
    except Exception as error:  # noqa: BLE001 - a future left open would hang its session
        if len(batch) > 1 and isinstance(error, DatabaseError):
            half = len(batch) // 2
            await _write(batch[:half], write)
            await _write(batch[half:], write)
            return
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
        return
    for (_, future), answer in zip(batch, answers, strict=True):
        if not future.done():
            future.set_result(answer)

"""Tells providers that nobody waits for an answer any more, once its task is over without it.

Whoever listens to a stream hangs up, and that is the end of it. An answer made in the background
would be made to its end, and paid for: also one whose step waits in the queue, or whose worker
died. So every worker looks when a session is cancelled, or a result delivered from outside. To be
told twice is no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ekiden import telemetry
from ekiden.errors import DatabaseError, ModelError
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import Withdraws
from ekiden.store.doorbell import Doorbell
from ekiden.store.ledger import Ledger, UnwantedAnswer

_SWEEP = 900.0  # seconds between looks that nothing asked for
_SOON = 15.0  # until the look after one that was asked for, or in which something failed


class Withdrawals:
    """Withdraws what is not wanted, until it is cancelled."""

    def __init__(self, ledger: Ledger, models: Models, doorbell: Doorbell) -> None:
        self._ledger = ledger
        self._models = models
        self._doorbell = doorbell

    async def run(self) -> None:
        """Look whenever calls are to stop, and soon again: an id may be noted just after."""
        async with self._doorbell.subscribe("session_cancelled") as bell:
            rung = True
            while True:
                try:
                    told = [
                        await self._withdraw(answer) for answer in await self._ledger.unwanted()
                    ]
                except DatabaseError as error:
                    telemetry.emit("database_lost", error=error.message, next_try_s=_SOON)
                    told = [False]
                rung = bool(await bell.wait(_SOON if rung or not all(told) else _SWEEP))

    async def _withdraw(self, answer: UnwantedAnswer) -> bool:
        """Let a provider stop; return whether all that can be done here is done."""
        provider: object = self._models.known(answer.provider, answer.model)
        return await withdraw(answer, provider, self._ledger.note_withdrawn)


async def withdraw(
    answer: UnwantedAnswer, provider: object, note: Callable[[UnwantedAnswer], Awaitable[None]]
) -> bool:
    """Let a provider stop, and ``note`` it; return whether all that can be done here is done."""
    if not isinstance(provider, Withdraws):
        return True
    told = {"model": f"{answer.provider}:{answer.model}", "task": answer.task_id}
    try:
        await provider.withdraw(answer.answer_id)
    except ModelError as error:
        telemetry.emit("answer_unstopped", error=error.message, **told)
        return False
    await note(answer)
    telemetry.emit("answer_withdrawn", **told)
    return True

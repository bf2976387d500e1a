"""Runs what is owed outside: webhooks, and the reminders and deadlines of gates.

Every worker looks when the bell rings and when the nearest is due; a row is one worker's at a time.
Each receiver has places of its own, as have the gates: one that swallows what it is sent holds up
nobody else. Retries have the same policy as steps: full jitter, Retry-After, an end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from ekiden import telemetry
from ekiden.core.retry import GiveUp, decide_retry
from ekiden.errors import DatabaseError
from ekiden.store.doorbell import LOOK_AT_EVERYTHING, Doorbell, Subscription
from ekiden.store.errands import Errand, Errands
from ekiden.store.sessions import Sessions
from ekiden.worker.webhooks import DeliveryFailed, body_of, body_of_alert, deliver, took_since

_PLACES = 4  # errands under way for one receiver, and for the gates
_HOLD = timedelta(seconds=60)  # how long a claimed errand is one worker's
_SWEEP = 600.0  # seconds between looks that nothing asked for
_TRIES = 100  # retries of a webhook: about four hours with the base below
_BASE = timedelta(seconds=5)


async def when_due(bell: Subscription, work: Callable[[], Awaitable[float]]) -> None:
    """Work whenever a bell rings, and after as many seconds as the work says; until cancelled."""
    while True:
        pause = 5.0
        with suppress(DatabaseError):
            pause = await work()
        await bell.wait(pause)


class ErrandRunner:
    """Runs errands until it is cancelled."""

    def __init__(
        self, errands: Errands, sessions: Sessions, doorbell: Doorbell, *, base: timedelta = _BASE
    ) -> None:
        self._errands = errands
        self._sessions = sessions
        self._doorbell = doorbell
        self._base = base
        self._under_way: list[int] = []  # the receiver of each

    async def run(self) -> None:
        """Look whenever the bell rings, a place is free, or something is due."""
        async with self._doorbell.subscribe("errand_due") as bell, asyncio.TaskGroup() as group:
            await when_due(bell, lambda: self._begin(group, bell))

    async def _begin(self, group: asyncio.TaskGroup, bell: Subscription) -> float:
        """Begin all that is due and has a place; return in how many seconds to look again."""
        while True:
            due = await self._errands.next_due(_PLACES, self._under_way)
            if due is None or due > 0:
                return _SWEEP if due is None else min(due, _SWEEP)
            claimed = await self._errands.claim(_PLACES, self._under_way, _HOLD)
            for errand in claimed:
                self._under_way.append(errand.receiver)
                group.create_task(self._run(errand)).add_done_callback(
                    partial(self._make_room, errand.receiver, bell)
                )
            if not claimed:
                return 1.0  # somebody else has them

    def _make_room(self, receiver: int, bell: Subscription, _done: asyncio.Task[None]) -> None:
        self._under_way.remove(receiver)
        bell.put(LOOK_AT_EVERYTHING)  # more may be due, and what was not taken is due again

    async def _run(self, errand: Errand) -> None:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "webhook": lambda: self._tell(errand),
            "reminder": lambda: self._remind(errand),
            "deadline": lambda: self._end(errand),
        }
        try:
            await kinds[errand.kind]()
        except Exception as error:  # noqa: BLE001 - the others must not wait for this one
            # It is due again once its hold is over.
            telemetry.emit("errand_failed", errand=errand.id, kind=errand.kind, error=str(error))

    async def _tell(self, errand: Errand) -> None:
        if errand.url is None:
            await self._errands.end(errand, "VOID", error="The webhook was stopped.")
            return
        body = await self._body(errand)
        begun = time.monotonic()
        try:
            status = await deliver(errand, body)
        except DeliveryFailed as failed:
            verdict = decide_retry(
                retryable=failed.retryable,
                tries=errand.attempt,
                max_retries=_TRIES,
                base=self._base,
                jitter=random.random(),  # noqa: S311
                retry_after=failed.retry_after,
            )
            gone = isinstance(verdict, GiveUp)
            await self._errands.end(
                errand,
                "FAILED" if isinstance(verdict, GiveUp) else "QUEUED",
                again=timedelta() if isinstance(verdict, GiveUp) else verdict.delay,
                http_status=failed.http_status,
                error=failed.message,
                took=took_since(begun),
            )
            telemetry.emit(
                # Not the address: those of chat services are all that it takes to write there.
                "webhook_failed", host=urlsplit(errand.url).hostname, error=failed.message,
                given_up=gone, session=errand.session_id, alert=errand.alert_id,
            )  # fmt: skip
        else:
            await self._errands.end(errand, "DONE", http_status=status, took=took_since(begun))

    async def _body(self, errand: Errand) -> bytes:
        """Return what is told: of an alert, or of a session as it is now."""
        if errand.alert_id is not None:
            return body_of_alert(errand, await self._sessions.alerts.get(errand.alert_id))
        return body_of(errand, await self._sessions.progress(_session_of(errand)))

    async def _remind(self, errand: Errand) -> None:
        told = await self._errands.remind(errand)
        await self._errands.end(errand, "DONE" if told else "VOID")

    async def _end(self, errand: Errand) -> None:
        """Let a gate end as its flow says, if it is still the one that was meant."""
        ended = await self._errands.end_gate(errand)
        await self._errands.end(errand, "DONE" if ended else "VOID")


def _session_of(errand: Errand) -> str:
    assert errand.session_id is not None  # only a webhook can be of an alert
    return errand.session_id

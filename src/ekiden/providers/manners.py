"""How a worker behaves towards one model of one provider, or one search engine.

It has at most so many calls under way and keeps to the rate limits that the server's own headers
state. Asked to wait, it does, and then goes on with half as many calls at once, and one more each
time that so many were answered (TCP's rule, RFC 5681 §3.1). It does not knock at a door that is
shut. Whoever would have to wait longer than a moment is not kept in the worker: it gets `NotNow`
with a due time, its task goes back to the queue until then, and its place is free for work that
another server does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import monotonic

from ekiden.errors import AnswerInvalid, NotNow, StepError
from ekiden.providers.breaker import OUTAGE, Breaker
from ekiden.providers.limits import RateLimits
from ekiden.providers.promises import Promises

# Seconds that a call may wait in place for its turn. Short: whoever waits has a slot of the worker,
# which another provider's step could use; going back to the queue costs one commit.
PATIENCE = 0.25
_SHORTEST = 0.25  # seconds; told to wait less, nobody is asked before: it would be asked in a loop


class Manners:
    """The manners towards one model or engine.

    Args:
        who: what people are told is not to be asked now.
        at_once: how many calls may be under way.
        breaker: shared by all that one provider serves; its own when None.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        who: str,
        *,
        at_once: int = 64,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._who = who
        self._at_once = at_once
        self._breaker = breaker or Breaker()
        self._clock = clock
        self._limits = RateLimits()
        self._places = asyncio.Semaphore(at_once)
        self._begun: dict[int, float] = {}  # calls under way: when they began
        self._count = 0
        self._waiting = 0
        self._window = float(at_once)  # calls under way that the server was seen to bear
        self._busy_since: float | None = None
        self._lasts = 0.0  # how long a call takes, as it was lately
        self._blocked_until = 0.0  # the server asked for it
        self._idle_since = 0.0  # when the last call under way ended
        self._places_promised = Promises()
        self._limits_promised = Promises()

    @asynccontextmanager
    async def turn(self, tokens: int = 0) -> AsyncIterator[Turn]:
        """Wait for a turn, and take it for the length of the ``with``.

        Args:
            tokens: about how many tokens the call will be counted with.

        Raises:
            NotNow: there is none within a moment; says when to come back.
        """
        await self._take_place()
        self._count += 1
        number = self._count
        probing = False
        try:
            probing = self._pass_breaker()
            ticket = await self._keep_to_limits(tokens)
            begun = self._begun[number] = self._clock()
            try:
                yield Turn(self._limits, ticket, self._clock)
            except StepError as error:
                self._failed(error)
                raise
            # Not reached when it was cancelled: that says nothing about the server.
            self._breaker.succeeded()
            self._busy_since = None
            self._window = min(self._at_once, self._window + 1 / self._window)
            self._lasts += ((self._clock() - begun) - self._lasts) * (0.2 if self._lasts else 1)
        finally:
            if probing:
                self._breaker.probe_over()
            if self._begun.pop(number, None) is not None and not self._begun:
                self._idle_since = self._clock()
            self._places.release()

    async def _take_place(self) -> None:
        if self._window < self._at_once and len(self._begun) >= self._window:
            raise self._full(len(self._begun), "as many as it was seen to bear")
        if not self._places.locked():
            if not self._begun and self._clock() - self._idle_since > self._lasts:
                self._places_promised.void()
            await self._places.acquire()
            return
        self._waiting += 1
        hopeless = self._waiting * self._between() > PATIENCE
        try:
            async with asyncio.timeout(0 if hopeless else PATIENCE):
                await self._places.acquire()
        except TimeoutError:
            raise self._full(self._at_once, "as many as are allowed") from None
        finally:
            self._waiting -= 1

    def _full(self, calls: int, why: str) -> NotNow:
        each = max(self._between(), 0.01)
        return NotNow(
            f"{self._who} has {calls} calls under way, {why}.",
            retry_after=self._places_promised.next(self._clock(), each, each),
        )

    def _between(self) -> float:
        """Return about how many seconds pass until the next place is free."""
        now = self._clock()
        longest = now - min(self._begun.values(), default=now)
        return max(self._lasts, longest) / min(self._at_once, self._window)

    async def _keep_to_limits(self, tokens: int) -> int:
        """Take what the call needs of the rate limits; return the ticket for it."""
        now = self._clock()
        asked = self._blocked_until - now
        if asked > PATIENCE:
            raise NotNow(
                f"{self._who} asked us to wait; it may be asked again in {asked:.1f} s.",
                retry_after=self._limits_promised.next(now, asked, self._between()),
            )
        wait = max(asked, self._limits.wait(tokens, now))
        if wait > PATIENCE:
            raise NotNow(
                f"The rate limit of {self._who} is used up for another {wait:.1f} s.",
                retry_after=self._limits_promised.next(now, wait, self._limits.each(tokens)),
            )
        ticket = self._limits.take(tokens, now)  # before the wait: the next must wait longer
        if wait > 0:
            await asyncio.sleep(wait)
        return ticket

    def _pass_breaker(self) -> bool:
        """Return whether this call probes a server that was down.

        Raises:
            NotNow: it is down, and not to be probed yet.
        """
        wait = self._breaker.wait(self._clock())
        if wait > 0:
            raise NotNow(
                f"{self._who} fails; it is asked again in {wait:.1f} s.",
                # Spread: those that find it up again should not all come at once.
                retry_after=wait * random.uniform(1, 1.25),  # noqa: S311
            )
        return self._breaker.begin()

    def _failed(self, error: StepError) -> None:
        now = self._clock()
        if not error.retryable or isinstance(error, AnswerInvalid):
            self._breaker.succeeded()  # it answers; only not this, or not so
        elif error.retry_after:  # told to wait 0 s is told nothing
            # Someone asks each hour, whatever was told: a quota may be raised before it is over.
            error.retry_after = min(max(error.retry_after, _SHORTEST), OUTAGE)
            self._blocked_until = max(self._blocked_until, now + error.retry_after)
            self._window = max(1.0, min(self._window, len(self._begun)) / 2)
            if self._busy_since is None:
                self._busy_since = now
            # It asked us to be slower, which is no fault of this task.
            error.counts = now - self._busy_since >= OUTAGE
        elif self._breaker.failed(now):
            # The server is down, which is no fault of this task: it is parked like the others.
            error.counts = False
            error.retry_after = self._breaker.wait(now)


class Turn:
    """One turn: hears the headers of the answer."""

    def __init__(self, limits: RateLimits, ticket: int, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._ticket = ticket
        self._clock = clock

    def heard(self, headers: Mapping[str, str]) -> None:
        """Learn from the headers of an answer, good or bad."""
        self._limits.learn(headers, self._ticket, self._clock())

"""Whether an error is worth another try, and when. One policy for every kind of step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MAX_DELAY = timedelta(minutes=5)  # the longest we wait on our own account
MAX_RETRY_AFTER = timedelta(hours=1)  # the longest we wait because the other side asked
MAX_DEATHS = 3  # a task that took this many workers with it is parked


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after this delay."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""

    reason: str


def decide_retry(
    *,
    retryable: bool,
    tries: int,
    max_retries: int,
    base: timedelta,
    jitter: float,
    retry_after: float | None = None,
) -> Retry | GiveUp:
    """Decide what follows a failed attempt.

    Exponential back-off with full jitter: a random point between zero and ``base * 2**(tries-1)``
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A delay the other
    side asked for is a floor under it.

    Args:
        retryable: whether the error can heal.
        tries: attempts made so far that count against the budget, this one included; from 1.
        max_retries: tries allowed after the first.
        base: RETRY_DELAY.
        jitter: a random number in [0, 1), drawn by the caller.
        retry_after: seconds from a Retry-After, if there was one.
    """
    if not retryable:
        return GiveUp("this error does not heal by trying again")
    if tries > max_retries:
        return GiveUp(f"{tries} of {max_retries + 1} tries used")
    # The exponent is bounded before the power: 2**1000 seconds is no timedelta.
    ceiling = min(MAX_DELAY, base * 2 ** min(tries - 1, 20))
    delay = ceiling * jitter
    if retry_after is not None:
        # Compared as a number: another machine wrote it, and 1e12 seconds are no timedelta.
        if retry_after > MAX_RETRY_AFTER.total_seconds():
            return GiveUp(
                f"asked to wait {retry_after:g} s, longer than the {MAX_RETRY_AFTER} we allow"
            )
        delay += timedelta(seconds=max(0.0, retry_after))
    return Retry(delay)

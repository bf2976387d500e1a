"""Rate limits, as the headers of answers state them.

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}      OpenAI and many who speak like it:
        https://platform.openai.com/docs/guides/rate-limits (reset is a duration: 1s, 6m0s)
    anthropic-ratelimit-{requests,tokens,…}-{limit,remaining,reset}
        https://platform.claude.com/docs/en/api/rate-limits (reset is a moment, RFC 3339)

Both are token buckets that fill evenly until "reset", when they are full again. So from what is
left, how much fits and when it is full, the rate follows, and with it the wait for any amount.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST = 24 * 3600.0

# What is counted, and whether in requests or in tokens.
_KINDS = {"requests": False, "tokens": True, "input-tokens": True, "output-tokens": True}


@dataclass(slots=True)
class _Bucket:
    level: float
    limit: float
    rate: float  # a second
    at: float

    def now(self, now: float) -> float:
        """Return what is in it."""
        return min(self.limit, self.level + self.rate * (now - self.at))

    def wait(self, need: float, now: float) -> float:
        """Return the seconds until there is enough."""
        missing = min(need, self.limit) - self.now(now)
        return max(0.0, missing / self.rate) if missing > 0 else 0.0


@dataclass(slots=True)
class RateLimits:
    """The limits of one model, as far as they were told."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _taken: list[tuple[int, int]] = field(default_factory=list)  # (ticket, tokens) under way
    _tickets: int = 0

    def wait(self, tokens: int, now: float) -> float:
        """Return how many seconds to wait before a call of about so many tokens."""
        return max(
            (b.wait(tokens if _KINDS[kind] else 1, now) for kind, b in self._buckets.items()),
            default=0.0,
        )

    def each(self, tokens: int) -> float:
        """Return how many seconds apart calls of about so many tokens may be."""
        return max(
            ((tokens if _KINDS[kind] else 1) / b.rate for kind, b in self._buckets.items()),
            default=0.0,
        )

    def take(self, tokens: int, now: float) -> int:
        """Note that a call begins; return its ticket."""
        self._tickets += 1
        self._taken.append((self._tickets, tokens))
        del self._taken[:-1000]
        for kind, bucket in self._buckets.items():
            bucket.level = bucket.now(now) - (tokens if _KINDS[kind] else 1)
            bucket.at = now
        return self._tickets

    def learn(self, headers: Mapping[str, str], ticket: int, now: float) -> None:
        """Take in what an answer says of the limits; ``ticket`` is that of its call.

        The server counted before the calls that began after this one: they are taken off.
        """
        later = [tokens for number, tokens in self._taken if number > ticket]
        for kind, in_tokens in _KINDS.items():
            stated = _stated(headers, kind)
            if stated is None:
                continue
            limit, remaining, reset = stated
            rate = (limit - remaining) / reset if reset > 0 and limit > remaining else math.inf
            if rate == math.inf:
                self._buckets.pop(kind, None)  # full, as far as anyone knows
                continue
            owed = sum(later) if in_tokens else len(later)
            self._buckets[kind] = _Bucket(remaining - owed, limit, rate, now)


def _stated(headers: Mapping[str, str], kind: str) -> tuple[float, float, float] | None:
    """Return limit, what is left and the seconds until it is full; None if not all are told."""
    for name in (f"x-ratelimit-{{}}-{kind}", f"anthropic-ratelimit-{kind}-{{}}"):
        limit = number(headers.get(name.format("limit")))
        remaining = number(headers.get(name.format("remaining")))
        reset = seconds_until(headers.get(name.format("reset")))
        if limit is not None and remaining is not None and reset is not None:
            return limit, remaining, reset
    return None


def number(value: str | None) -> float | None:
    """Return a header's number; None if it is none."""
    try:
        found = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def duration(value: str) -> float | None:
    """Read ``1m30s`` or ``250ms``, the way rate limit headers write it."""
    found = _DURATION.findall(value)
    if not found or _DURATION.sub("", value).strip():
        return None
    return sum(float(amount) * _UNITS[unit] for amount, unit in found)


def seconds_until(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read when a limit is reset: a duration, a number of seconds, or a moment (RFC 3339)."""
    if value is None:
        return None
    seconds = duration(value)
    if seconds is None:
        seconds = number(value)
    if seconds is None:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST)

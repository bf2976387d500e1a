"""When those come back who found no place: one after the other, as places should come free.

What is expected may be wrong, so whoever is far behind looks again before: after a minute, or after
as long as the crowd has lasted by then. So a crowd of thousands comes by a few times and not each
minute, and a wrong guess costs at most as long again as was waited already.
"""

from __future__ import annotations

import random

_LONGEST = 60.0  # seconds after which a parked task looks again, whatever was computed;
_FURTHEST = 300.0  # and in a crowd that lasts


class Promises:
    """The places promised to parked tasks. Time is handed in, in seconds."""

    def __init__(self) -> None:
        self._until = 0.0  # the last promise
        self._since = 0.0  # since when there was always somebody who had one

    def next(self, now: float, first: float, each: float) -> float:
        """Return in how many seconds to come back: after ``first``, then ``each`` later."""
        if self._until <= now:
            self._since = now
        longest = min(max(_LONGEST, now - self._since), _FURTHEST)
        self._until = max(self._until + each, now + first)
        if self._until - now > longest:
            self._until = now + longest
            return longest * random.uniform(0.5, 1)  # noqa: S311 - spread, not secret
        return self._until - now

    def void(self) -> None:
        """Nobody came for a place that is free: the crowd is gone."""
        self._until = 0.0

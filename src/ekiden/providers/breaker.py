"""The circuit breaker of one provider.

Closed, everything passes. After so many failures in a row it opens: nothing passes for a while.
Then one call probes; its success closes the breaker, its failure opens it for twice as long
(M. Nygard, "Release It!", 2007, chapter 5).
"""

from __future__ import annotations

FAILURES = 5  # in a row, that open it
# Seconds that it stays open. One probe in ten seconds harms nobody, and a provider that is up again
# is soon found so.
SHORTEST, LONGEST = 0.5, 10.0
OUTAGE = 3600.0  # seconds; one that lasts longer counts against the tasks that meet it


class Breaker:
    """One provider's breaker. Time is handed in, in seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._down_since: float | None = None  # None: closed
        self._opens_at = 0.0
        self._period = SHORTEST
        self._probing = False

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing may pass; 0 when a call may."""
        if self._down_since is None:
            return 0.0
        if self._probing:
            return self._period  # whoever probes will tell
        return max(0.0, self._opens_at - now)

    def begin(self) -> bool:
        """Note that a call passes; return whether it is a probe."""
        if self._down_since is None:
            return False
        self._probing = True
        return True

    def probe_over(self) -> None:
        """The probe came to its end, whatever that was."""
        self._probing = False

    def succeeded(self) -> None:
        """The provider answered."""
        self._failures = 0
        self._down_since = None
        self._period = SHORTEST

    def failed(self, now: float) -> bool:
        """Note a failure; return whether the provider counts as down, and not the task as bad."""
        self._failures += 1
        if self._down_since is not None:
            if now >= self._opens_at:  # the probe; others were under way when it opened
                self._period = min(self._period * 2, LONGEST)
                self._opens_at = now + self._period
        elif self._failures >= FAILURES:
            self._down_since = now
            self._opens_at = now + self._period
        return self._down_since is not None and now - self._down_since < OUTAGE

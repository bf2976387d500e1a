"""One thing that ``ekiden doctor`` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str  # ok, note (works, but know it) or broken
    message: str
    seconds: float | None = None  # how long a provider took to answer
    cost_usd: float | None = None  # of that answer; None: it costs nothing, or nobody knows

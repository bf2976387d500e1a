"""Durations in buckets that grow by a fixed factor: sums of histograms are histograms.

Bucket 0 holds what took a millisecond or less, bucket i what took up to ``GROWTH**i`` milliseconds.
A percentile is answered with the value that is equally far, in proportion, from both ends of its
bucket, so it is off by ``PERCENTILE_ERROR`` at most. After DDSketch (Masson, Rim, Lee, "DDSketch: a
fast and fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019, section 2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

GROWTH = 1.1
PERCENTILE_ERROR = (GROWTH - 1) / (GROWTH + 1)  # 4.8 % of the true value
_UNIT = 0.001  # seconds


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration; the same as ``roll_up`` in queries/metrics.sql."""
    return max(0, math.ceil(math.log(max(seconds / _UNIT, 1)) / math.log(GROWTH)))


def upper_bound(bucket: int) -> float:
    """Return the longest duration, in seconds, that a bucket holds."""
    return _UNIT * GROWTH**bucket


@dataclass(slots=True)
class Histogram:
    """How many durations there were of each length."""

    counts: dict[int, int] = field(default_factory=dict)  # by bucket
    n: int = 0
    seconds: float = 0.0  # their sum, exact

    def add(self, bucket: int, n: int, seconds: float) -> Self:
        """Add ``n`` durations of one bucket, ``seconds`` in all."""
        self.counts[bucket] = self.counts.get(bucket, 0) + n
        self.n += n
        self.seconds += seconds
        return self

    def merge(self, other: Histogram) -> Self:
        """Add another histogram."""
        for bucket, n in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + n
        self.n += other.n
        self.seconds += other.seconds
        return self

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None of nothing."""
        return self.seconds / self.n if self.n else None

    def quantile(self, q: float) -> float | None:
        """Return the ``q`` quantile (nearest rank) in seconds; None of nothing."""
        if not self.n:
            return None
        rank = max(1, math.ceil(q * self.n - 1e-9))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                break
        if bucket == 0:
            return _UNIT
        return 2 * upper_bound(bucket) / (GROWTH + 1)

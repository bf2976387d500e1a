from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.histogram import (
    GROWTH,
    PERCENTILE_ERROR,
    Histogram,
    bucket_of,
    upper_bound,
)

durations = st.floats(min_value=0.001, max_value=100_000)


def of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(bucket_of(value), 1, value)
    return histogram


@given(durations)
def test_a_duration_lies_in_its_bucket(seconds: float):
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound(bucket) * (1 + 1e-9)
    assert bucket == 0 or seconds > upper_bound(bucket - 1) * (1 - 1e-9)


@given(st.lists(durations, min_size=1), st.floats(min_value=0, max_value=1))
def test_a_percentile_is_off_by_no_more_than_is_said(values: list[float], q: float):
    true = sorted(values)[max(1, math.ceil(q * len(values) - 1e-9)) - 1]
    answered = of(values).quantile(q)
    assert answered is not None
    assert abs(answered - true) <= true * PERCENTILE_ERROR * (1 + 1e-6) + 1e-12


@given(st.lists(durations), st.lists(durations))
def test_the_sum_of_two_histograms_is_the_histogram_of_both(one: list[float], other: list[float]):
    merged = of(one).merge(of(other))
    both = of(one + other)
    assert merged.counts == both.counts
    assert merged.n == both.n
    assert math.isclose(merged.seconds, both.seconds)


def test_nothing_has_no_percentile():
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean is None
    assert (GROWTH - 1) / (GROWTH + 1) < 0.048

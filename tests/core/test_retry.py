"""When a failed attempt is worth another try."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.retry import MAX_DELAY, MAX_RETRY_AFTER, GiveUp, Retry, decide_retry

bases = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1))
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
budgets = st.integers(min_value=0, max_value=2**15 - 1)
waits = st.none() | st.floats(allow_nan=False, max_value=MAX_RETRY_AFTER.total_seconds())


@given(budgets.filter(bool), st.data(), bases, jitters, waits)
def test_within_the_budget_the_delay_lies_between_what_was_asked_and_the_back_off_above_it(
    max_retries: int,
    data: st.DataObject,
    base: timedelta,
    jitter: float,
    retry_after: float | None,
):
    tries = data.draw(st.integers(min_value=1, max_value=max_retries))
    decision = decide_retry(
        retryable=True,
        tries=tries,
        max_retries=max_retries,
        base=base,
        jitter=jitter,
        retry_after=retry_after,
    )
    assert isinstance(decision, Retry)
    asked = timedelta(seconds=max(0.0, retry_after or 0.0))
    ceiling = min(MAX_DELAY.total_seconds(), base.total_seconds() * 2.0 ** min(tries - 1, 60))
    assert asked <= decision.delay <= asked + timedelta(seconds=ceiling, microseconds=1)


@given(budgets, st.integers(min_value=1), bases, jitters, waits)
def test_past_the_budget_it_gives_up_and_says_how_many_tries_were_used(
    max_retries: int, beyond: int, base: timedelta, jitter: float, retry_after: float | None
):
    decision = decide_retry(
        retryable=True,
        tries=max_retries + beyond,
        max_retries=max_retries,
        base=base,
        jitter=jitter,
        retry_after=retry_after,
    )
    assert decision == GiveUp(f"{max_retries + beyond} of {max_retries + 1} tries used")


@given(st.integers(min_value=1), budgets, jitters, waits)
def test_an_error_that_cannot_heal_is_never_tried_again(
    tries: int, max_retries: int, jitter: float, retry_after: float | None
):
    decision = decide_retry(
        retryable=False,
        tries=tries,
        max_retries=max_retries,
        base=timedelta(seconds=1),
        jitter=jitter,
        retry_after=retry_after,
    )
    assert decision == GiveUp("this error does not heal by trying again")


@given(st.floats(min_value=MAX_RETRY_AFTER.total_seconds(), exclude_min=True))
def test_a_wait_longer_than_an_hour_is_not_waited_for_however_absurd(retry_after: float):
    # Up to infinity: the number is what another machine wrote in a header.
    decision = decide_retry(
        retryable=True,
        tries=1,
        max_retries=3,
        base=timedelta(seconds=1),
        jitter=0,
        retry_after=retry_after,
    )
    assert isinstance(decision, GiveUp)
    assert "longer than the 1:00:00 we allow" in decision.reason


@pytest.mark.parametrize(("tries", "seconds"), [(1, 1), (2, 2), (3, 4), (8, 128), (10, 300)])
def test_the_ceiling_doubles_with_each_try_up_to_five_minutes(tries: int, seconds: int):
    half = decide_retry(
        retryable=True, tries=tries, max_retries=20, base=timedelta(seconds=1), jitter=0.5
    )
    assert half == Retry(timedelta(seconds=seconds / 2))


def test_full_jitter_reaches_down_to_no_delay_at_all():
    assert decide_retry(
        retryable=True, tries=5, max_retries=9, base=timedelta(seconds=1), jitter=0
    ) == Retry(timedelta(0))

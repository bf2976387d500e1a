"""Caps, rate limits, waiting when asked, and the breaker, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from ekiden.errors import ModelBusy, ModelRefused, ModelUnavailable, NotNow
from ekiden.providers.breaker import FAILURES, LONGEST, OUTAGE, SHORTEST, Breaker
from ekiden.providers.limits import RateLimits, seconds_until
from ekiden.providers.manners import Manners

UNAVAILABLE = ModelUnavailable("503")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def fails(manners: Manners, error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        async with manners.turn():
            raise error
    return caught.value


async def works(manners: Manners) -> None:
    async with manners.turn():
        pass


async def parked(manners: Manners, tokens: int = 0) -> float:
    """The seconds until it may be asked; fails when it may be now."""
    with pytest.raises(NotNow) as caught:
        async with manners.turn(tokens):
            raise AssertionError("it was asked")
    assert not caught.value.counts
    assert caught.value.retry_after is not None
    return caught.value.retry_after


async def test_the_cap_holds_and_a_place_is_handed_on(monkeypatch):
    monkeypatch.setattr("ekiden.providers.manners.PATIENCE", 60)
    manners = Manners("m", at_once=2)
    most = now = 0

    async def call() -> None:
        nonlocal most, now
        async with manners.turn():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.002)
            now -= 1

    await asyncio.gather(*(call() for _ in range(50)))
    assert most == 2


async def test_who_would_have_to_wait_is_parked_one_after_the_other(monkeypatch):
    monkeypatch.setattr("ekiden.providers.manners.PATIENCE", 0.01)
    clock = Clock()
    manners = Manners("slow", at_once=2, clock=clock)
    over = asyncio.Event()

    async def hold() -> None:
        async with manners.turn():
            await over.wait()

    holding = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    clock.now += 10  # they have run for ten seconds: two places, so one is free each five
    waits = [await parked(manners) for _ in range(3)]
    assert waits == pytest.approx([5, 10, 15])
    assert all([await parked(manners) <= 60 for _ in range(50)])
    over.set()
    await asyncio.gather(*holding)


async def test_nobody_asks_before_the_server_said_so():
    clock = Clock()
    manners = Manners("m", clock=clock)
    await fails(manners, ModelBusy("429", retry_after=7))
    assert await parked(manners) == pytest.approx(7)
    clock.now += 6.5
    assert await parked(manners) == pytest.approx(0.5)
    clock.now += 0.5
    await works(manners)


async def test_a_moment_is_waited_for_in_place():
    manners = Manners("m")
    begun = time.monotonic()
    await fails(manners, ModelBusy("429", retry_after=0.1))
    await works(manners)
    assert time.monotonic() - begun >= 0.1


async def test_after_a_429_it_goes_on_with_half_as_many_at_once():
    clock = Clock()
    manners = Manners("m", at_once=64, clock=clock)
    held = [manners.turn() for _ in range(8)]
    for turn in held:
        await turn.__aenter__()
    error = await fails(manners, ModelBusy("429", retry_after=1))
    assert not error.counts  # it was asked to be slower, the task did nothing wrong
    clock.now += 1
    await parked(manners)  # eight are under way, of nine it was too many: half of that may be
    for _ in range(4):
        await held.pop().__aexit__(None, None, None)
    await works(manners)
    for turn in held:
        await turn.__aexit__(None, None, None)


async def test_a_server_that_is_busy_for_an_hour_counts_against_the_tasks():
    clock = Clock()
    manners = Manners("m", clock=clock)
    assert not (await fails(manners, ModelBusy("429", retry_after=1))).counts
    clock.now += OUTAGE
    assert (await fails(manners, ModelBusy("429", retry_after=1))).counts
    clock.now += 2
    await works(manners)
    assert not (await fails(manners, ModelBusy("429", retry_after=1))).counts


async def test_told_to_wait_no_time_is_told_nothing():
    manners = Manners("m", clock=Clock())
    errors = [await fails(manners, ModelBusy("429", retry_after=0.0)) for _ in range(FAILURES)]
    assert [error.counts for error in errors] == [True] * (FAILURES - 1) + [False]
    assert await parked(manners) >= SHORTEST


async def test_told_to_wait_next_to_no_time_waits_a_moment():
    error = await fails(Manners("m", clock=Clock()), ModelBusy("429", retry_after=0.001))
    assert (error.counts, error.retry_after) == (False, 0.25)


async def test_told_to_wait_a_day_one_asks_each_hour():
    clock = Clock()
    manners = Manners("m", clock=clock)
    error = await fails(manners, ModelBusy("429", retry_after=86400))
    assert (error.counts, error.retry_after) == (False, OUTAGE)
    clock.now += OUTAGE - 1
    await parked(manners)
    clock.now += 1
    await works(manners)


async def test_where_nobody_came_for_a_free_place_the_crowd_is_gone(monkeypatch):
    monkeypatch.setattr("ekiden.providers.manners.PATIENCE", 0.01)
    clock = Clock()
    manners = Manners("m", at_once=1, clock=clock)

    async def waits(times: int) -> list[float]:
        async with manners.turn():
            clock.now += 5
            return [await parked(manners) for _ in range(times)]

    assert await waits(2) == pytest.approx([5, 10])
    assert await waits(1) == pytest.approx([10])  # behind the two, who may come yet
    clock.now += 6
    assert await waits(1) == pytest.approx([5])


async def test_those_parked_for_a_rate_limit_come_back_one_after_the_other():
    clock = Clock()
    manners = Manners("m", clock=clock)
    async with manners.turn() as turn:
        turn.heard(OPENAI)
    assert [await parked(manners) for _ in range(3)] == pytest.approx([1, 2, 3])


async def test_the_breaker_opens_probes_and_closes():
    clock = Clock()
    manners = Manners("m", clock=clock)
    errors = [await fails(manners, ModelUnavailable("down")) for _ in range(FAILURES)]
    assert [error.counts for error in errors] == [True] * (FAILURES - 1) + [False]
    assert errors[-1].retry_after == SHORTEST
    period = SHORTEST
    for _ in range(8):
        assert await parked(manners) >= period * 0.999
        clock.now += period
        again = await fails(manners, ModelUnavailable("still down"))
        period = min(period * 2, LONGEST)
        assert (again.counts, again.retry_after) == (False, period)
    clock.now += period
    await works(manners)
    await works(manners)


async def test_a_storm_of_a_minute_is_knocked_at_fourteen_times_and_no_more():
    clock = Clock()
    manners = Manners("m", clock=clock)
    made = 0
    for _ in range(600):  # each tenth of a second three tasks come by
        for _ in range(3):
            with suppress(NotNow):
                error = await fails(manners, ModelUnavailable("down"))
                made += 1
                assert error.counts is (made < FAILURES)
        clock.now += 0.1
    # Allowed: five that open it, then a probe after 0.5, 1, 2, 4 and 8 s more, then each 10 s.
    assert made == FAILURES + 9


async def test_one_call_probes_while_the_others_stay_parked():
    clock = Clock()
    manners = Manners("m", clock=clock)
    for _ in range(FAILURES):
        await fails(manners, ModelUnavailable("down"))
    clock.now += SHORTEST
    async with manners.turn():
        await parked(manners)
    await works(manners)


async def test_a_probe_that_was_cancelled_leaves_the_way_to_the_next():
    clock = Clock()
    manners = Manners("m", clock=clock)
    for _ in range(FAILURES):
        await fails(manners, ModelUnavailable("down"))
    clock.now += SHORTEST
    await fails(manners, KeyboardInterrupt())  # type: ignore[arg-type]
    await works(manners)


async def test_an_outage_that_never_ends_counts_against_the_tasks():
    clock = Clock()
    manners = Manners("m", clock=clock)
    for _ in range(FAILURES):
        await fails(manners, ModelUnavailable("down"))
    clock.now += OUTAGE + 1
    assert (await fails(manners, ModelUnavailable("down"))).counts


async def test_a_refusal_is_an_answer_and_opens_nothing():
    manners = Manners("m")
    for _ in range(FAILURES * 2):
        assert (await fails(manners, ModelRefused("401"))).counts
    await works(manners)


async def test_models_of_one_provider_share_its_breaker():
    clock, breaker = Clock(), Breaker()
    one, other = (Manners(m, breaker=breaker, clock=clock) for m in ("p:one", "p:other"))
    for _ in range(FAILURES):
        await fails(one, ModelUnavailable("down"))
    assert await parked(other) >= SHORTEST


OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1m0s",
    "x-ratelimit-limit-tokens": "60000",
    "x-ratelimit-remaining-tokens": "30000",
    "x-ratelimit-reset-tokens": "30s",
}


async def test_the_rate_follows_from_the_headers():
    """https://platform.openai.com/docs/guides/rate-limits: full again in 60 s, so one a second."""
    clock = Clock()
    manners = Manners("m", clock=clock)
    async with manners.turn() as turn:
        turn.heard(OPENAI)
    limits = RateLimits()
    limits.learn(OPENAI, limits.take(0, 0.0), 0.0)
    assert limits.wait(0, 0.0) == pytest.approx(1)
    assert limits.wait(40_000, 0.0) == pytest.approx(10)  # 10,000 tokens missing, 1,000 a second
    assert limits.wait(0, 1.0) == 0
    limits.take(0, 1.0)
    assert limits.wait(0, 1.0) == pytest.approx(1)
    assert await parked(manners, tokens=50_000) == pytest.approx(20)


def test_calls_that_began_after_the_one_that_is_answered_are_taken_off():
    limits = RateLimits()
    first = limits.take(100, 0.0)
    for _ in range(3):
        limits.take(100, 0.0)
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "60",
    }
    limits.learn(headers, first, 0.0)
    assert limits.wait(100, 0.0) == pytest.approx(60 / 47)


def test_a_call_larger_than_the_limit_waits_until_it_is_full_and_not_for_ever():
    limits = RateLimits()
    limits.learn(OPENAI, limits.take(0, 0.0), 0.0)
    assert limits.wait(10**9, 0.0) == pytest.approx(30)


def test_a_full_or_untold_limit_holds_nobody_back():
    limits = RateLimits()
    limits.learn(OPENAI, limits.take(0, 0.0), 0.0)
    full = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "60",
            "x-ratelimit-reset-requests": "0s", "x-ratelimit-limit-tokens": "6",
            "x-ratelimit-remaining-tokens": "6", "x-ratelimit-reset-tokens": "1s"}  # fmt: skip
    limits.learn(full, limits.take(0, 0.0), 0.0)
    limits.learn({"x-ratelimit-limit-requests": "nonsense"}, 1, 0.0)
    assert limits.wait(10**6, 0.0) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("6m0s", 360), ("250ms", 0.25), ("30", 30), ("2026-01-01T00:00:10Z", 10), ("soon", None),
     ("", None), ("-5", 0), ("1e99", 86400)],
)  # fmt: skip
def test_a_reset_is_a_duration_a_number_or_a_moment(value, seconds):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert seconds_until(value, now=now) == (seconds if seconds is None else pytest.approx(seconds))

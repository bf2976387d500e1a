"""A crowd at a door that lets few through: how often each of them comes by in vain."""

from __future__ import annotations

import heapq

import pytest

from ekiden.providers.promises import Promises


def crowd(people: int, at_once: int, takes: float) -> tuple[float, float]:
    """Return how often each came in vain, on average, and how long all took, by the optimum."""
    promised = Promises()
    coming = [(0.001 * number, number) for number in range(people)]
    ends: list[float] = []
    in_vain = 0
    while coming:
        now, number = heapq.heappop(coming)
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        if len(ends) < at_once:
            heapq.heappush(ends, now + takes)
            continue
        in_vain += 1
        again = promised.next(now, takes / at_once, takes / at_once)
        heapq.heappush(coming, (now + again, number))
    return in_vain / people, max(ends) / (people * takes / at_once)


def test_thousands_come_by_a_few_times_each_and_the_door_is_hardly_ever_idle() -> None:
    in_vain, took = crowd(20_000, at_once=10, takes=1.0)
    assert in_vain < 9, in_vain
    assert took < 1.2, took


def test_nobody_waits_longer_than_the_crowd_has_lasted() -> None:
    promised = Promises()
    for now in range(0, 1000, 20):
        wait = promised.next(now, first=5000, each=1)
        assert wait <= min(max(60, now), 300)
    assert wait >= 150
    promised.void()
    assert promised.next(1000, first=5000, each=1) <= 60


def test_those_who_are_told_a_time_come_one_after_the_other() -> None:
    promised = Promises()
    assert [promised.next(7, first=2, each=1) for _ in range(3)] == pytest.approx([2, 3, 4])

"""Workers count what ended while something ends, and ask for nothing when they are idle."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ekiden.core.metrics import Measure, Window, times
from ekiden.errors import DatabaseError
from ekiden.store import metrics
from ekiden.store.metrics import Metrics
from ekiden.worker import roller
from ekiden.worker.roller import Roller
from tests.worker.relay import House, sums, working
from tests.worker.test_costs import AUTO, counted


class Turns(Metrics):
    """Counts how often it is asked."""

    asked = 0
    more = 0

    async def roll_up(self, *, older_than: timedelta = timedelta()) -> bool:
        self.asked += 1
        self.more -= 1
        return self.more >= 0


async def test_a_worker_counts_what_it_ended(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "MARGIN", timedelta(0))
    monkeypatch.setattr(roller.Roller.run, "__defaults__", (0.1,))
    async with working(house.dsn, sums()):
        session = await house.begin("sums", AUTO)
        await house.until(session)
        ended = await house.pool.fetchval("SELECT count(*) FROM ekiden.attempts")
        async with asyncio.timeout(10):
            while ended != await house.pool.fetchval(
                "SELECT sum(n) FROM ekiden.metric_rollups r"
                " JOIN ekiden.metric_series s ON s.id = r.series_id"
                " WHERE r.width = 'ever' AND s.measure = 'attempt'"
            ):
                await asyncio.sleep(0.02)


async def test_an_idle_worker_asks_for_nothing(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roller.Roller.run, "__defaults__", (0.02,))
    async with working(house.dsn, sums()):
        await asyncio.sleep(0.5)
        before = await counted(house)
        await asyncio.sleep(0.5)  # and what counted() waits itself: 80 looks
        after = await counted(house)
    # This test's own questions, and a beat of the heart.
    assert after["transactions"] - before["transactions"] <= 10


async def test_a_look_is_taken_once_more_after_the_last_attempt(house: House):
    ended = 0
    turns = Turns(house.pool, house.dsn)
    roll = Roller(turns, ended=lambda: ended, commits=dict)
    await roll.look()
    assert turns.asked == 0
    ended = 3
    for expected in (1, 2, 2, 2):  # what ended just before a look may be too young for it
        await roll.look()
        assert turns.asked == expected


async def test_a_long_past_is_counted_turn_by_turn(house: House):
    turns = Turns(house.pool, house.dsn)
    turns.more = 5
    roll = Roller(turns, ended=lambda: 1, commits=dict)
    await roll.look()
    assert turns.asked == 6


async def test_how_long_commits_take_is_kept_for_every_attempt(house: House):
    """Two workers add to the same sums; what is left when one stops is written then."""
    async with working(house.dsn, sums()), working(house.dsn, sums()):
        ids = [await house.begin("sums", AUTO, n=5) for _ in range(10)]
        for id_ in ids:
            await house.until(id_)
    done = await house.pool.fetchval(
        "SELECT count(*) FROM ekiden.attempts WHERE outcome = 'COMPLETED'"
    )
    commits = times(await house.sessions.metrics.ever(), Measure.COMMIT)
    assert commits.n == done
    assert 0 < commits.seconds < 20 * done
    past = await house.sessions.metrics.past(Window.M15)
    assert times(past.facts, Measure.COMMIT).counts == commits.counts


async def test_many_workers_add_their_commits_at_once(house: House):
    metrics = Metrics(house.pool, house.dsn)
    taken = dict.fromkeys(range(30), (2, 0.5))
    backwards = dict(reversed(taken.items()))
    await asyncio.gather(
        *(metrics.add_commits(given) for _ in range(20) for given in (taken, backwards))
    )
    assert times(await metrics.ever(), Measure.COMMIT).n == 40 * 60


async def test_a_worker_whose_commit_times_cannot_be_written_says_goodbye_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    async def refused(_metrics: Metrics, _times: object) -> None:
        raise DatabaseError("no")

    monkeypatch.setattr(Metrics, "add_commits", refused)
    async with working(house.dsn, sums()):
        await house.until(await house.begin("sums", AUTO))
    assert await house.pool.fetchval("SELECT state FROM ekiden.workers") == "STOPPED"

"""Feeds that are fetched by themselves: a real PostgreSQL, a server on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from ekiden.errors import SearchError
from ekiden.search.documents import DocumentSearch
from ekiden.search.fetching import fetch
from ekiden.store.documents import Documents
from ekiden.store.doorbell import Doorbell
from ekiden.store.feeds import Feeds
from ekiden.worker import feeds as refreshing
from ekiden.worker.feeds import FeedRefresher
from tests.search.server import Server
from tests.search.test_feeds import ATOM, RSS, here, port_of
from tests.worker.relay import House
from tests.worker.streaming import until


@pytest.fixture
async def service() -> AsyncIterator[Server]:
    told = Server()
    listener = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    told.body = RSS.encode()
    async with listener:
        yield told


def address(service: Server) -> str:
    return f"http://feeds.example:{port_of(service)}/feed.xml"


@asynccontextmanager
async def refreshing_by(house: House, **arguments: Any) -> AsyncIterator[FeedRefresher]:
    """A refresher that runs for the length of the ``with``."""
    given = {"every": 3600.0, "fetch": partial(fetch, resolve=here)} | arguments
    async with Doorbell(lambda: house.dsn) as bell:
        refresher = FeedRefresher(
            Feeds(house.pool, house.dsn), Documents(house.pool, house.dsn), bell, **given
        )
        running = asyncio.create_task(refresher.run())
        try:
            yield refresher
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def due(house: House, source: str) -> None:
    """Make a feed known that is due at once."""
    await house.pool.execute("INSERT INTO ekiden.feeds (source) VALUES ($1)", source)


async def again(house: House) -> None:
    """Let every feed be due, as if the time had come; ring, so that nobody waits for a timer."""
    await house.pool.execute("UPDATE ekiden.feeds SET available_at = ekiden.now()")
    await house.pool.execute("NOTIFY feed_due")


async def state(house: House) -> Any:
    return await house.pool.fetchrow(
        "SELECT etag, last_modified, failures, error, attempt,"
        " extract(epoch FROM available_at - ekiden.now())::float8 AS wait FROM ekiden.feeds"
    )


async def tried(house: House, times: int) -> bool:
    """Whether a feed was fetched so often, and is at rest."""
    row = await state(house)
    return bool(row["attempt"] == times and abs(row["wait"] - 120) > 10)


async def test_a_feed_that_is_due_is_taken_in_and_then_asked_only_for_what_is_new(
    house: House, service: Server
):
    service.headers = {"ETag": '"v1"', "Last-Modified": "Sun, 01 Mar 2026 10:00:00 GMT"}
    await due(house, address(service))
    async with refreshing_by(house):
        await until(lambda: tried(house, 1))
        assert "if-none-match" not in service.received
        [found] = await DocumentSearch(Documents(house.pool, house.dsn)).search("sash", limit=1)
        assert found.title == "The sash"
        row = await state(house)
        assert (row["etag"], row["last_modified"]) == tuple(service.headers.values())
        assert 3200 < row["wait"] < 4000
        # Nothing is new: its server says so, and gives no marks again.
        service.status, service.body, service.headers = 304, b"", {}
        await again(house)
        await until(lambda: tried(house, 2))
        assert service.received["if-none-match"] == '"v1"'
        assert service.received["if-modified-since"] == "Sun, 01 Mar 2026 10:00:00 GMT"
        row = await state(house)
        assert (row["etag"], row["failures"], row["error"]) == ('"v1"', 0, None)
        # Then there is.
        service.status, service.body, service.headers = 200, ATOM.encode(), {"ETag": '"v2"'}
        await again(house)
        await until(lambda: tried(house, 3))
        row = await state(house)
        assert (row["etag"], row["last_modified"]) == ('"v2"', None)
    assert (await Documents(house.pool, house.dsn).counts())[address(service)] == 3


async def test_what_fails_is_fetched_ever_more_rarely_and_says_why(house: House, service: Server):
    service.status = 500
    await due(house, address(service))
    waits = []
    async with refreshing_by(house):
        for times in range(1, 4):
            await until(lambda n=times: tried(house, n))
            row = await state(house)
            assert (row["failures"], "500" in row["error"]) == (times, True)
            waits.append(row["wait"])
            await again(house)
        # When its server says, and not before.
        await until(lambda: tried(house, 4))
        service.status, service.headers = 429, {"Retry-After": "7200"}
        await again(house)
        await until(lambda: tried(house, 5))
        assert 7190 < (await state(house))["wait"] <= 7200
        # It heals.
        service.status, service.headers = 200, {}
        await again(house)
        await until(lambda: tried(house, 6))
        row = await state(house)
        assert (row["failures"], row["error"]) == (0, None)
    assert 45 <= waits[0] <= 60
    assert 90 <= waits[1] <= 120
    assert 180 <= waits[2] <= 240


@pytest.mark.parametrize(
    ("failures", "retryable", "least", "most"),
    [
        (0, True, 45, 60),
        (3, True, 360, 480),
        (99, True, 64_800, 86_400),
        (0, False, 86_400, 86_400),
    ],
)
def test_how_long_a_feed_that_fails_is_left_alone(
    failures: int, retryable: bool, least: float, most: float
):
    error = SearchError("no")
    error.retryable = retryable
    assert least <= refreshing._pause_after(failures, error) <= most


async def test_a_page_that_is_no_feed_any_more_waits_a_day_and_what_was_there_stays(
    house: House, service: Server
):
    await due(house, address(service))
    async with refreshing_by(house):
        await until(lambda: tried(house, 1))
        service.body = b"<html>This domain is for sale.</html>"
        await again(house)
        await until(lambda: tried(house, 2))
        row = await state(house)
        assert "no RSS or Atom feed" in row["error"]
        assert row["wait"] > 86_000
    assert (await Documents(house.pool, house.dsn).counts())[address(service)] == 2


async def test_of_many_workers_one_fetches_a_feed(house: House, service: Server):
    await due(house, address(service))
    async with refreshing_by(house), refreshing_by(house), refreshing_by(house):
        await until(lambda: tried(house, 1))
        for _ in range(10):
            await again(house)
            await asyncio.sleep(0.05)
        row = await state(house)
        assert service.times == row["attempt"]


async def test_one_that_hurts_does_not_stop_the_others(house: House, service: Server):
    async def broken_for_one(url: str, known: Any) -> Any:
        if url.endswith("broken"):
            raise RuntimeError("the parser fell over")
        return await fetch(url, known, resolve=here)

    await due(house, "https://feeds.example/broken")
    await due(house, address(service))
    async with refreshing_by(house, fetch=broken_for_one):
        await until(lambda: _counted(house, address(service)))
        [error] = await house.pool.fetch("SELECT error FROM ekiden.feeds WHERE error IS NOT NULL")
    assert error["error"] == "RuntimeError: the parser fell over"


async def _counted(house: House, source: str) -> bool:
    rows = await house.pool.fetchval("SELECT count(*) FROM ekiden.feeds WHERE attempt = 1")
    return rows == 2 and source in await Documents(house.pool, house.dsn).counts()


async def test_one_that_was_added_is_due_after_the_interval_and_a_removed_one_never(house: House):
    feeds = Feeds(house.pool, house.dsn)
    source = "https://feeds.example/feed.xml"
    await feeds.add(source, timedelta(seconds=100))
    wait = await feeds.next_due()
    assert wait is not None
    assert 95 < wait <= 100
    [line] = await feeds.lines()
    assert line.fetched_at is not None
    await Documents(house.pool, house.dsn).remove(source)
    assert await feeds.next_due() is None


async def test_with_an_interval_of_none_nothing_is_fetched(house: House, service: Server):
    await due(house, address(service))
    async with refreshing_by(house, every=0.0) as refresher:
        await asyncio.wait_for(refresher.run(), 5)
    assert service.times == 0

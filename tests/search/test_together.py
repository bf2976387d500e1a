from __future__ import annotations

import pytest

from ekiden.errors import SearchError
from ekiden.search.cached import CachedSearch
from ekiden.search.protocol import Source
from ekiden.search.together import Together, page_of
from ekiden.store.connection import open_pool
from ekiden.store.searches import Searches


def source(url: str, title: str = "t") -> Source:
    return Source(title=title, url=url, snippet="", origin="o")


class Engine:
    def __init__(self, name: str, *urls: str, error: Exception | None = None) -> None:
        self.name = name
        self.urls = urls
        self.error = error
        self.asked = 0

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [source(url, self.name) for url in self.urls[:limit]]


async def test_engines_take_turns_and_a_page_is_there_once():
    one = Engine("one", "https://a.org/1", "https://a.org/2?utm_source=x", "https://a.org/3")
    two = Engine("two", "http://www.a.org/2/", "https://b.org/")
    both = Together([one, two])
    found = await both.search("q", limit=4)
    assert [(s.title, s.url) for s in found] == [
        ("one", "https://a.org/1"),
        ("two", "http://www.a.org/2/"),
        ("two", "https://b.org/"),
        ("one", "https://a.org/3"),
    ]
    assert both.name == "one + two"


async def test_when_one_fails_the_search_fails():
    both = Together([Engine("one", "https://a.org"), Engine("two", error=SearchError("down"))])
    with pytest.raises(SearchError, match="down"):
        await both.search("q")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.org/x", "http://www.a.org/x/#part", True),
        ("https://a.org/x?b=1&a=2", "https://a.org/x?a=2&b=1&gclid=9", True),
        ("https://a.org/x?id=1", "https://a.org/x?id=2", False),
        ("https://a.org/x", "https://a.org:8443/x", False),
        ("https://a.org/X", "https://a.org/x", False),
        ("file:///notes/a.md", "file:///notes/b.md", False),
        ("https://[", "https://[", True),
    ],
)
def test_which_addresses_lead_to_the_same_page(one, other, same):
    assert (page_of(one) == page_of(other)) is same


async def test_a_paid_engine_is_asked_the_same_thing_once_a_day(database: str):
    engine = Engine("paid", "https://a.org/1")
    async with open_pool(database) as pool:
        cached = CachedSearch(engine, Searches(pool, database))
        first = await cached.search("relay  race")
        assert await cached.search("relay race") == first
        assert engine.asked == 1
        await cached.search("relay race", limit=6)
        await cached.search("relay race", language="ja")
        await cached.search("another")
        assert engine.asked == 4
        await pool.execute("UPDATE ekiden.searches SET day = day - 1")
        assert await cached.search("relay race") == first
        assert engine.asked == 5
        assert await pool.fetchval("SELECT count(*) FROM ekiden.searches") == 1  # the old are gone


async def test_a_failed_search_is_not_kept_and_nothing_found_is(database: str):
    engine = Engine("paid", error=SearchError("down"))
    async with open_pool(database) as pool:
        cached = CachedSearch(engine, Searches(pool, database))
        with pytest.raises(SearchError):
            await cached.search("relay")
        engine.error = None
        assert await cached.search("relay") == []
        assert await cached.search("relay") == []
    assert engine.asked == 2


async def test_without_a_database_the_search_is_made_all_the_same(tmp_path):
    dsn = f"postgresql://nobody@/nowhere?host={tmp_path}"
    async with open_pool(dsn) as pool:
        cached = CachedSearch(Engine("paid", "https://a.org"), Searches(pool, dsn))
        assert len(await cached.search("relay")) == 1

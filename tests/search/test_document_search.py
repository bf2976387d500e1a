from __future__ import annotations

import pytest

from ekiden.errors import SearchError
from ekiden.search.documents import Document, DocumentSearch, origin_of
from ekiden.search.protocol import SearchEngine
from ekiden.store.connection import open_pool
from ekiden.store.documents import Documents

RELAY = Document(
    source="/home/someone/race notes",
    url="file:///home/someone/race%20notes/ekiden.md",
    title="Ekiden\n basics",
    body="Filler. " * 200 + "The runner hands on the tasuki, a sash. " + "Filler. " * 200,
    licence="CC BY-SA 4.0",
    published="2026-01-02",
)


async def test_a_source_says_where_it_comes_from_and_shows_the_passage(store: Documents):
    await store.put([RELAY])
    engine: SearchEngine = DocumentSearch(store)
    [source] = await engine.search("tasuki", limit=3)
    assert source.title == "Ekiden basics"
    assert source.url == RELAY.url
    assert source.origin == "race notes"
    assert "hands on the tasuki, a sash." in source.snippet
    assert len(source.snippet) <= 500
    assert (source.licence, source.published) == ("CC BY-SA 4.0", "2026-01-02")


async def test_the_name_says_how_much_was_searched(store: Documents):
    engine = DocumentSearch(store)
    assert engine.name == "documents"
    await store.put(
        [Document(source="s", url=f"u{n}", title="T", body=f"relay {n}") for n in range(1_200)]
    )
    await engine.search("relay")
    assert engine.name == "documents (1,200)"


async def test_nothing_found_is_an_empty_list(store: Documents):
    engine = DocumentSearch(store)
    assert await engine.search("relay") == []
    await store.put([RELAY])
    assert await engine.search("penguin") == []
    assert await engine.search("'\"&|!:*\x00") == []


async def test_a_store_that_is_gone_is_a_failed_search(tmp_path):
    dsn = f"postgresql://nobody@/nowhere?host={tmp_path}"
    async with open_pool(dsn) as pool:
        with pytest.raises(SearchError, match="nowhere") as caught:
            await DocumentSearch(Documents(pool, dsn)).search("relay")
    assert caught.value.retryable


def test_a_folder_is_shown_by_its_name_and_a_corpus_as_it_is():
    assert origin_of("/home/someone/notes") == "notes"
    assert origin_of("wikipedia-summaries") == "wikipedia-summaries"

"""Perplexity's search API, played by a service on a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
import pytest_asyncio

from ekiden.errors import SearchError
from ekiden.search.perplexity import PerplexitySearch
from ekiden.search.protocol import SearchEngine
from tests.search.server import Server

KEY = "pplx-secret"


def results(service: Server, *found: object) -> None:
    service.says({"id": "1", "results": found})


@pytest_asyncio.fixture
async def engine(service: Server) -> AsyncIterator[PerplexitySearch]:
    made = PerplexitySearch(KEY, base_url=service.url, timeout=5)
    yield made
    await made.aclose()


async def test_what_perplexity_found_becomes_sources(service: Server, engine: SearchEngine):
    results(
        service,
        {
            "title": "Relay\nrace",
            "url": "https://example.org/relay",
            "snippet": "Filler text. " * 200 + "The relay began in 1917. " + "Filler text. " * 200,
            "date": "2026-03-01",
            "last_updated": "2026-04-01",
        },
        {"title": None, "url": "http://example.org/x", "snippet": None, "date": "yesterday"},
    )
    first, second = await engine.search("When did the relay begin?", limit=7, language="ja")
    assert service.line.startswith("POST /search ")
    assert service.received["authorization"] == f"Bearer {KEY}"
    assert service.asked == {
        "query": "When did the relay begin?",
        "max_results": 7,
        "search_language_filter": ["ja"],
    }
    assert first.title == "Relay race"
    assert "The relay began in 1917." in first.snippet
    assert len(first.snippet) <= 500
    assert (first.origin, first.published) == ("Perplexity", "2026-03-01")
    assert (second.title, second.snippet, second.published) == ("http://example.org/x", "", None)


async def test_nothing_found_is_an_empty_list(engine: PerplexitySearch):
    assert await engine.search("xyzzy") == []


async def test_without_words_nothing_is_asked(service: Server, engine: PerplexitySearch):
    assert await engine.search(" \x00 ") == []
    assert await engine.search("relay", limit=0) == []
    assert service.line == ""


async def test_a_query_stays_within_what_the_api_allows(service: Server, engine: PerplexitySearch):
    await engine.search("relay\x00\ud800 " + "x" * 10_000, limit=500, language="en; drop")
    assert service.asked["max_results"] == 20
    assert len(str(service.asked["query"])) == 2_000
    assert "search_language_filter" not in service.asked


async def test_an_address_that_no_one_can_open_is_left_out(
    service: Server, engine: PerplexitySearch
):
    results(
        service,
        {"title": "x", "url": "javascript:alert(1)", "snippet": ""},
        {"title": "\ud800y\x00", "url": "https://example.org/y", "snippet": ""},
    )
    assert [s.title for s in await engine.search("x")] == ["y"]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), (None, None, None), ("soon", None, None), ("date", 1, 60), ("nan", None, None)],
)
async def test_too_many_requests_say_when_to_come_back(
    service: Server,
    engine: PerplexitySearch,
    header: str | None,
    least: float | None,
    most: float | None,
):
    import time

    service.status = 429
    if header:
        in_a_minute = formatdate(time.time() + 60, usegmt=True)
        service.headers["Retry-After"] = in_a_minute if header == "date" else header
    with pytest.raises(SearchError, match="429") as caught:
        await engine.search("relay")
    assert caught.value.retryable
    if least is None or most is None:
        assert caught.value.retry_after is None
    else:
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (400, False), (302, False), (500, True), (503, True)]
)
async def test_only_what_can_heal_is_tried_again(
    service: Server, engine: PerplexitySearch, status: int, retryable: bool
):
    service.status = status
    with pytest.raises(SearchError, match=str(status)) as caught:
        await engine.search("relay")
    assert caught.value.retryable is retryable
    assert ("PERPLEXITY_API_KEY" in caught.value.message) is (status == 401)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"results": 5}',
        b'{"results": ["x"]}',
        b'{"results": [{}]}',
    ],
)
async def test_an_answer_in_another_form_is_an_error(
    service: Server, engine: PerplexitySearch, body: bytes
):
    service.body = body
    with pytest.raises(SearchError, match="form"):
        await engine.search("relay")


async def test_no_answer_is_an_error_in_time(service: Server):
    service.answers = False
    engine = PerplexitySearch(KEY, base_url=service.url, timeout=0.1)
    with pytest.raises(SearchError, match="in time"):
        await engine.search("relay")
    await engine.aclose()


async def test_nobody_there_is_an_error_without_the_key():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        engine = PerplexitySearch(KEY, base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(SearchError, match="cannot be reached") as caught:
            await engine.search("relay")
        await engine.aclose()
    assert KEY not in caught.value.message
    assert KEY not in repr(engine)

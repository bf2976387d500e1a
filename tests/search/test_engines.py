"""Every engine on the web, played by a server on a real socket that speaks as it is documented.

perplexity  https://docs.perplexity.ai/api-reference/search-post
tavily      https://docs.tavily.com/documentation/api-reference/endpoint/search
brave       https://api-dashboard.search.brave.com/app/documentation/web-search/query
            https://api-dashboard.search.brave.com/app/documentation/web-search/codes
searxng     https://docs.searxng.org/dev/search_api.html
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
import pytest_asyncio

from ekiden.errors import SearchError, SettingsError
from ekiden.search.brave import BraveSearch
from ekiden.search.engine import WebEngine
from ekiden.search.narrowing import narrowing
from ekiden.search.perplexity import PerplexitySearch
from ekiden.search.searxng import SearxngSearch
from ekiden.search.tavily import TavilySearch
from ekiden.search.web import MOST_BYTES, iso_date
from tests.search.server import Server

KEY = "secret-0123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    build: Callable[..., WebEngine]
    origin: str
    answer: Callable[[list[dict[str, Any]]], Any]  # (title, url, text, date) as the service has it
    asked: dict[str, object]  # for "When did the relay begin?", three at most, in Japanese
    line: str
    key: tuple[str, str] | None


def plain(found: list[dict[str, Any]], text: str, published: str) -> list[dict[str, Any]]:
    return [
        {"title": f["title"], "url": f["url"], text: f["text"], published: f["date"]} for f in found
    ]


ENGINES = [
    Engine(
        build=lambda url, **more: PerplexitySearch(KEY, base_url=url, **more),
        origin="Perplexity",
        answer=lambda found: {"id": "1", "results": plain(found, "snippet", "date")},
        asked={
            "query": "When did the relay begin?",
            "max_results": 3,
            "search_language_filter": ["ja"],
        },
        line="POST /search ",
        key=("authorization", f"Bearer {KEY}"),
    ),
    Engine(
        build=lambda url, **more: TavilySearch(KEY, base_url=url, **more),
        origin="Tavily",
        answer=lambda found: {
            "query": "q",
            "response_time": 1.1,
            "results": plain(found, "content", "published_date"),
        },
        asked={"query": "When did the relay begin?", "max_results": 3},
        line="POST /search ",
        key=("authorization", f"Bearer {KEY}"),
    ),
    Engine(
        build=lambda url, **more: BraveSearch(KEY, base_url=url, **more),
        origin="Brave",
        answer=lambda found: {
            "type": "search",
            "web": {"type": "search", "results": plain(found, "description", "page_age")},
        },
        asked={
            "q": "When did the relay begin?",
            "count": "3",
            "search_lang": "jp",
            "country": "JP",
        },
        line="GET /res/v1/web/search?",
        key=("x-subscription-token", KEY),
    ),
    Engine(
        build=lambda url, **more: SearxngSearch(base_url=url, **more),
        origin="SearXNG",
        answer=lambda found: {"query": "q", "results": plain(found, "content", "publishedDate")},
        asked={"q": "When did the relay begin?", "format": "json", "language": "ja"},
        line="GET /search?",
        key=None,
    ),
]
FOUND = [
    {
        "title": "Relay\nrace",
        "url": "https://example.org/relay",
        "text": "Filler text. " * 200 + "The relay began in 1917. " + "Filler text. " * 200,
        "date": "2026-03-01T10:00:00",
    },
    {"title": "no page", "url": "javascript:alert(1)", "text": "", "date": None},
    {"title": None, "url": "http://example.org/x", "text": None, "date": "yesterday"},
]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.origin)
def spec(request: pytest.FixtureRequest) -> Engine:
    return request.param  # type: ignore[no-any-return]


@pytest_asyncio.fixture
async def engine(spec: Engine, service: Server) -> AsyncIterator[WebEngine]:
    service.says(spec.answer([]))
    made = spec.build(service.url)
    yield made
    await made.aclose()


async def test_what_is_found_becomes_sources_that_a_person_can_open(
    spec: Engine, engine: WebEngine, service: Server
):
    service.says(spec.answer(FOUND))
    first, second = await engine.search("When did the relay begin?", limit=3, language="ja")
    assert service.line.startswith(spec.line)
    assert service.asked == spec.asked
    if spec.key is not None:
        assert service.received[spec.key[0]] == spec.key[1]
    assert first.title == "Relay race"
    assert "The relay began in 1917." in first.snippet
    assert len(first.snippet) <= 500
    assert (first.origin, first.published) == (spec.origin, "2026-03-01")
    assert (second.title, second.snippet, second.published) == ("http://example.org/x", "", None)


async def test_nothing_found_and_nothing_asked_are_empty_lists(engine: WebEngine, service: Server):
    assert await engine.search("xyzzy") == []
    before = service.times
    assert await engine.search(" \x00 ") == []
    assert await engine.search("relay", limit=0) == []
    assert service.times == before


async def test_a_query_stays_within_what_the_service_allows(engine: WebEngine, service: Server):
    await engine.search("relay\x00\ud800 " + "長い " * 10_000, limit=500, language="en; drop")
    query = str(service.asked.get("q") or service.asked.get("query"))
    assert query.startswith("relay")
    assert len(query) <= 2_000
    assert int(str(service.asked.get("count") or service.asked.get("max_results") or 0)) <= 20


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (403, False), (302, False), (429, True), (500, True)]
)
async def test_only_what_can_heal_is_tried_again_and_no_key_is_told(
    engine: WebEngine, service: Server, status: int, retryable: bool
):
    service.status = status
    service.headers = {"Retry-After": "7", "Location": "http://169.254.169.254/"}
    with pytest.raises(SearchError, match=str(status)) as caught:
        await engine.search("relay")
    assert caught.value.retryable is retryable
    assert caught.value.retry_after == (7 if retryable else None)
    assert KEY not in caught.value.message
    assert service.times == 1


NARROW = narrowing("Example.org, -old.example.org", "month")


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (
            "Perplexity",
            {
                "search_domain_filter": ["example.org", "-old.example.org"],
                "search_recency_filter": "month",
            },
        ),
        (
            "Tavily",
            {
                "include_domains": ["example.org"],
                "exclude_domains": ["old.example.org"],
                "time_range": "month",
            },
        ),
        ("Brave", {"freshness": "pm"}),
        ("SearXNG", {"time_range": "month"}),
    ],
)
async def test_domains_and_recency_are_told_and_held(service: Server, origin: str, told: dict):
    spec = next(engine for engine in ENGINES if engine.origin == origin)
    hosts = ["example.org", "www.example.org", "old.example.org", "badexample.org", "example.com"]
    found = [{"title": h, "url": f"https://{h}/", "text": "", "date": None} for h in hosts]
    service.says(spec.answer(found))
    engine = spec.build(service.url, narrowing=NARROW)
    titles = [source.title for source in await engine.search("relay")]
    assert titles == ["example.org", "www.example.org"]
    assert told.items() <= service.asked.items()
    await engine.aclose()


@pytest.mark.parametrize(
    ("domains", "recency", "says"),
    [
        ("https://example.org", "", "EKIDEN_SEARCH_DOMAINS: 'https://example.org'"),
        ("example", "", "not a domain"),
        ("", "decade", "EKIDEN_SEARCH_RECENCY='decade'"),
    ],
)
def test_what_cannot_be_meant_is_a_settings_error(domains: str, recency: str, says: str):
    with pytest.raises(SettingsError, match=says):
        narrowing(domains, recency)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [(None, None, None), ("soon", None, None), ("date", 1, 60), ("nan", None, None)],
)
async def test_retry_after_is_a_number_or_a_date(
    engine: WebEngine, service: Server, header: str | None, least: float, most: float
):
    service.status = 429
    if header:
        in_a_minute = formatdate(time.time() + 60, usegmt=True)
        service.headers["Retry-After"] = in_a_minute if header == "date" else header
    with pytest.raises(SearchError, match="429") as caught:
        await engine.search("relay")
    wait = caught.value.retry_after
    assert wait is None if least is None else least <= (wait or 0) <= most


async def test_what_no_database_keeps_is_left_out(spec: Engine, engine: WebEngine, service: Server):
    found = {"title": "\ud800y\x00", "url": "https://a.org/", "text": "\udfff", "date": None}
    service.says(spec.answer([found]))
    assert [(s.title, s.snippet) for s in await engine.search("x")] == [("y", "")]


async def test_nobody_there_is_an_error_without_the_key(spec: Engine):
    engine = spec.build("http://127.0.0.1:1")
    with pytest.raises(SearchError, match="cannot be reached") as caught:
        await engine.search("relay")
    await engine.aclose()
    assert KEY not in caught.value.message
    assert KEY not in repr(engine)


async def test_brave_tells_its_windows_apart(service: Server):
    service.status = 429
    service.headers = {
        "X-RateLimit-Limit": "1, 15000",
        "X-RateLimit-Remaining": "0, 14000",
        "X-RateLimit-Reset": "1, 1419704",
    }
    brave = BraveSearch(KEY, base_url=service.url)
    with pytest.raises(SearchError) as caught:
        await brave.search("relay")
    assert caught.value.retry_after == 1
    await brave.aclose()


async def test_brave_marks_what_it_found_and_we_do_not(service: Server):
    marked = {"title": "A &amp; <strong>B</strong>", "description": "<strong>Relay</strong> &#x27;"}
    service.says({"web": {"results": [marked | {"url": "http://x/"}]}})
    brave = BraveSearch(KEY, base_url=service.url)
    [found] = await brave.search("relay")
    assert (found.title, found.snippet) == ("A & B", "Relay '")
    await brave.aclose()


async def test_searxng_without_json_says_what_to_change(service: Server):
    service.status = 403
    searxng = SearxngSearch(base_url=service.url)
    with pytest.raises(SearchError, match=r"search\.formats"):
        await searxng.search("relay")
    await searxng.aclose()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"results": 5, "web": 5}'])
async def test_an_answer_in_another_form_is_an_error(
    engine: WebEngine, service: Server, body: bytes
):
    service.body = body
    with pytest.raises(SearchError, match="form"):
        await engine.search("relay")


async def test_an_answer_without_end_is_given_up(engine: WebEngine, service: Server):
    service.body = b" " * (MOST_BYTES + 1)
    with pytest.raises(SearchError, match="longer"):
        await engine.search("relay")


async def test_no_answer_is_an_error_in_time(spec: Engine, service: Server):
    service.answers = False
    engine = spec.build(service.url, timeout=0.1)
    with pytest.raises(SearchError, match="in time"):
        await engine.search("relay")
    await engine.aclose()


def test_an_address_that_is_none_is_a_settings_error(spec: Engine):
    with pytest.raises(SettingsError):
        spec.build("ftp://user:pw@host")


@pytest.mark.parametrize(
    ("told", "day"),
    [
        ("2026-03-01", "2026-03-01"),
        ("2026-03-01T10:00:00Z", "2026-03-01"),
        ("Sun, 01 Mar 2026 23:30:00 -0200", "2026-03-02"),
        ("3 days ago", None),
        (None, None),
        (17, None),
    ],
)
def test_a_date_is_read_in_any_of_its_forms(told, day):
    assert iso_date(told) == day

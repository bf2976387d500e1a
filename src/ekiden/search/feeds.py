"""Reading RSS and Atom feeds (``ekiden sources add https://…``)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from typing import Any
from urllib.parse import urljoin

import feedparser

from ekiden.errors import SearchError
from ekiden.search.documents import Document, DocumentStore
from ekiden.search.fetching import Page, fetch
from ekiden.search.folders import FolderReport, Skipped
from ekiden.search.reading import read_html, split_passages
from ekiden.search.text import clean, guess_language

MOST_ENTRIES = 1_000


def is_feed_address(source: str) -> bool:
    """Whether a source is named by an address and not by a path."""
    return source.lower().startswith(("https://", "http://"))


async def add_feed(
    store: DocumentStore, url: str, *, fetch: Callable[[str], Awaitable[Page]] = fetch
) -> FolderReport:
    """Add a feed, or take in what is new in it. Entries that have left the feed stay.

    Raises:
        SearchError: it cannot be fetched, or is no feed.
        DatabaseError: the entries could not be stored.
    """
    written, skipped = await take_in(store, await fetch(url), url)
    return FolderReport(
        source=url,
        documents=(await store.counts()).get(url, 0),
        written=written,
        removed=0,
        skipped=skipped,
    )


async def take_in(store: DocumentStore, page: Page, url: str) -> tuple[int, tuple[Skipped, ...]]:
    """Store what is new in a feed that was fetched; return how many passages, and what was left.

    Raises:
        SearchError: it is no feed.
        DatabaseError: the entries could not be stored.
    """
    entries = await asyncio.to_thread(read_feed, page, url)
    written = await store.put([entry for entry in entries if isinstance(entry, Document)])
    return written, tuple(entry for entry in entries if isinstance(entry, Skipped))


def read_feed(page: Page, source: str) -> list[Document | Skipped]:
    """Return the passages of every entry, and the entries that nobody could open.

    Raises:
        SearchError: it is no feed.
    """
    # As a file: given text or bytes, the library would take them for a name if there is such a one.
    feed = feedparser.parse(
        io.BytesIO(page.body), response_headers={"content-type": page.content_type}
    )
    if not feed.get("version"):
        error = SearchError(f"{source} is no RSS or Atom feed.")
        error.retryable = False
        raise error
    found: dict[str, list[Document | Skipped]] = {}
    for entry in feed.entries[:MOST_ENTRIES]:
        link = urljoin(page.url, clean(str(entry.get("link", ""))))
        title = _plain(str(entry.get("title", "")))[:300]
        if not is_feed_address(link) or not entry.get("link"):
            nowhere = Skipped(path=title or "an entry", reason="has no address")
            found[f"{len(found)}"] = [nowhere]
        else:
            found[link] = list(_passages(entry, source, link, title))
    return [item for entry in found.values() for item in entry]


def _passages(entry: Any, source: str, link: str, title: str) -> Iterator[Document]:
    contents = [part.get("value", "") for part in entry.get("content", [])]
    body = read_html(max([*contents, str(entry.get("summary", ""))], key=len)).body
    for part, passage in enumerate(split_passages(body) or [title or link]):
        yield Document(
            source=source,
            url=link,
            title=title or link,
            body=passage,
            part=part,
            language=guess_language(passage),
            published=_day(entry.get("published_parsed") or entry.get("updated_parsed")),
        )


def _plain(text: str) -> str:
    return clean(read_html(text).body)


def _day(moment: Any) -> str | None:
    try:
        return date(*moment[:3]).isoformat()
    except (TypeError, ValueError):
        return None

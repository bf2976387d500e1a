"""The documents that can be searched here, kept and found by PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Protocol

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql
from ekiden.store.words import index_text, query_terms, storable

BATCH = 500  # passages a statement


class Passage(Protocol):
    """A passage as it is given: one part of a document that a person can open."""

    @property
    def source(self) -> str:
        """What it was added with: the name of a corpus or the path of a folder."""

    @property
    def url(self) -> str:
        """Where the document is."""

    @property
    def part(self) -> int:
        """Which passage of the document this is, from 0."""

    @property
    def title(self) -> str:
        """The title of the document."""

    @property
    def body(self) -> str:
        """The text of the passage; about 2,000 characters serve the ranking best."""

    @property
    def language(self) -> str:
        """The language it is written in, such as ``en`` or ``ja``."""

    @property
    def licence(self) -> str | None:
        """What it may be used under, when that must be shown."""

    @property
    def published(self) -> str | None:
        """ISO date, when known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPassage:
    """A passage that a search found, the best one of its document."""

    source: str
    url: str
    part: int
    title: str
    body: str
    language: str
    licence: str | None
    published: str | None
    score: float  # higher is better; to be compared within one search only


class Documents:
    """Keeps and finds documents.

    Args:
        pool: connections to a migrated database.
        dsn: where it is, for messages.
    """

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def put(self, passages: Iterable[Passage]) -> int:
        """Add passages and bring changed ones up to date.

        A document is replaced by what is given of it, so give all passages of one together. What is
        there already is not written again. Each document is stored whole or not at all; a call that
        was cut short is completed by the same call again.

        Returns:
            How many passages were new or different.

        Raises:
            DatabaseError: they could not be stored.
        """
        written = 0
        batches = _batches(passages)
        # Reading the files and cutting the words is work for a thread: the loop lives on.
        while (columns := await asyncio.to_thread(next, batches, None)) is not None:
            with translated(self._dsn):
                written += await self._pool.fetchval(sql("put_documents"), *columns)
        return written

    async def counts(self) -> dict[str, int]:
        """Return how many documents each source has."""
        with translated(self._dsn):
            rows = await self._pool.fetch(sql("count_documents"))
        return {row["source"]: row["documents"] for row in rows}

    async def search(
        self, query: str, *, language: str = "en", limit: int = 5
    ) -> Sequence[FoundPassage]:
        """Return the best documents for a question in any words, best first; [] when none fits.

        Args:
            query: words, a sentence, a question; nothing in it is syntax.
            language: is preferred, others are found as well.
            limit: at most this many documents.
        """
        terms = query_terms(query)
        if not terms or limit < 1:
            return []
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("search_documents"),
                list(terms),
                list(terms.values()),
                storable(language),
                limit,
            )
        return [_found(row) for row in rows]

    async def keep_only(self, source: str, urls: Iterable[str]) -> int:
        """Remove the documents of a source that are not among these and return how many."""
        kept = [storable(url) for url in urls]
        with translated(self._dsn):
            removed: int = await self._pool.fetchval(sql("keep_documents"), storable(source), kept)
        return removed

    async def remove(self, source: str) -> int:
        """Remove all of a source and return how many documents that were."""
        with translated(self._dsn):
            removed: int = await self._pool.fetchval(sql("remove_source"), storable(source))
        return removed


def _found(row: asyncpg.Record) -> FoundPassage:
    published: date | None = row["published"]
    return FoundPassage(
        source=row["source"],
        url=row["url"],
        part=row["part"],
        title=row["title"],
        body=row["body"],
        language=row["language"],
        licence=row["licence"],
        published=published.isoformat() if published else None,
        score=row["score"],
    )


_Row = tuple[
    str, str, int, str, str, str, str | None, str, str, date | None, bytes
]  # in the order of the parameters of put_documents


def _batches(passages: Iterable[Passage]) -> Iterator[list[list[object]]]:
    """Yield the columns of ``put_documents``; a document is never split between two batches."""
    rows: dict[tuple[str, str, int], _Row] = {}
    for _, document in groupby(passages, key=lambda p: (p.source, p.url)):
        if len(rows) >= BATCH:
            yield _columns(rows)
            rows = {}
        for passage in document:
            row = _row(passage)
            rows[row[:3]] = row  # given twice: the last one counts
    if rows:
        yield _columns(rows)


def _columns(rows: dict[tuple[str, str, int], _Row]) -> list[list[object]]:
    # In one order everywhere: two processes that add the same documents wait, and do not deadlock.
    return [list(column) for column in zip(*(rows[key] for key in sorted(rows)), strict=True)]


def _row(passage: Passage) -> _Row:
    title, body = storable(passage.title), storable(passage.body)
    licence = None if passage.licence is None else storable(passage.licence)
    published = _date(passage.published)
    kept = (title, body, passage.language, licence, published)
    return (
        storable(passage.source),
        storable(passage.url),
        passage.part,
        title,
        body,
        storable(passage.language),
        licence,
        index_text(title),
        index_text(body),
        published,
        hashlib.sha256(repr(kept).encode("utf-8", "replace")).digest(),
    )


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None

"""Searching what was added here: folders of the user, and the demo corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from ekiden.errors import DatabaseError, SearchError
from ekiden.search.protocol import Source
from ekiden.search.text import best_passage, clean

RECOUNT = 60.0  # seconds; a worker runs for weeks while folders are added


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document, or one passage of a long one."""

    source: str  # what it was added with: the name of a corpus, the path of a folder
    url: str  # where a person can read it
    title: str
    body: str
    part: int = 0  # which passage of the document, from 0
    language: str = "en"
    licence: str | None = None  # when it must be shown
    published: str | None = None  # ISO date, when known


class Found(Protocol):
    """What a store gives back for a document that fits."""

    @property
    def source(self) -> str:
        """What it was added with."""

    @property
    def url(self) -> str:
        """Where a person can read it."""

    @property
    def title(self) -> str:
        """The title of the document."""

    @property
    def body(self) -> str:
        """The passage that fits best."""

    @property
    def licence(self) -> str | None:
        """What must be shown with it."""

    @property
    def published(self) -> str | None:
        """ISO date, when known."""


class DocumentStore(Protocol):
    """What keeps the documents; ``ekiden.store.documents.Documents`` is one."""

    async def put(self, passages: Iterable[Document], /) -> int:
        """Add passages, replacing older forms of their documents; return how many were new."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Return how many documents each source has."""
        ...

    async def search(self, query: str, *, language: str, limit: int) -> Sequence[Found]:
        """Return the best documents, best first."""
        ...

    async def keep_only(self, source: str, urls: Iterable[str], /) -> int:
        """Remove the documents of a source that are not among these; return how many."""
        ...


class DocumentSearch:
    """A search engine over the documents that were added here.

    Args:
        store: what keeps them.
    """

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._count: int | None = None
        self._counted_at = 0.0

    @property
    def name(self) -> str:
        """What is searched, with how many there are once that was counted."""
        return "documents" if self._count is None else f"documents ({self._count:,})"

    async def count(self) -> int:
        """Count the documents, for the name, and return how many there are.

        Raises:
            SearchError: the store could not be asked.
        """
        try:
            self._count = sum((await self._store.counts()).values())
        except DatabaseError as error:
            raise SearchError(f"The documents could not be counted: {error.message}") from error
        self._counted_at = asyncio.get_running_loop().time()
        return self._count

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return the best documents for a question, best first; an empty list when none fits.

        Raises:
            SearchError: the store could not be asked.
        """
        now = asyncio.get_running_loop().time()
        if self._count is None or now - self._counted_at > RECOUNT:
            await self.count()
        try:
            found = await self._store.search(query, language=language, limit=limit)
        except DatabaseError as error:
            raise SearchError(f"The documents could not be searched: {error.message}") from error
        return [
            Source(
                title=clean(document.title),
                url=document.url,
                snippet=best_passage(document.body, query),
                origin=origin_of(document.source),
                licence=document.licence,
                published=document.published,
            )
            for document in found
        ]


def origin_of(source: str) -> str:
    """Return the name of a source as people know it: of a folder, its name without the path."""
    path = PurePath(source)
    return path.name if path.is_absolute() and path.name else source

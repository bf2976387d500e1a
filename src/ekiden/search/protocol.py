"""What a search source is: it takes a query and gives back what it found, never more."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel, ConfigDict


class Source(BaseModel):
    """One thing that was found. Everything in it comes from the source itself."""

    model_config = ConfigDict(frozen=True)

    title: str
    url: str  # where a person can read it; file:// for local documents
    snippet: str  # the passage that matched, at most about 500 characters
    origin: str  # what was searched, e.g. "wikipedia-summaries" or the folder's name
    licence: str | None = None  # e.g. "CC BY-SA 4.0", shown where required
    published: str | None = None  # ISO date, when known


class SearchEngine(Protocol):
    """Somewhere to look things up."""

    @property
    def name(self) -> str:
        """What is searched, in words people see, e.g. ``documents (10,245)``."""
        ...

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return at most ``limit`` sources, best first; an empty list when nothing fits.

        Raises:
            SearchError: the source could not be asked.
        """
        ...

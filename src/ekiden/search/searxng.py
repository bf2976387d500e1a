"""Searching with a SearXNG of one's own: https://docs.searxng.org/dev/search_api.html."""

from __future__ import annotations

import re
from typing import Any

from ekiden.errors import SearchError
from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import Source
from ekiden.search.text import clean
from ekiden.search.web import Web, source

LONGEST_QUERY = 1_000
_LANGUAGE = re.compile("[a-z]{2}")


class SearxngSearch:
    """A search engine that asks a SearXNG.

    Args:
        base_url: from SEARXNG_URL.
        narrowing: domains, and how new a page must be.
        timeout: seconds for one search.
    """

    name = "the web (SearXNG)"
    paid = False

    def __init__(
        self, base_url: str, *, narrowing: Narrowing = ANYTHING, timeout: float = 30
    ) -> None:
        self._narrowing = narrowing
        self._web = Web("SearXNG", base_url, timeout=timeout)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what was found, best first; an empty list when nothing fits.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        query = clean(query)[:LONGEST_QUERY]
        if not query or limit < 1:
            return []
        params = {"q": query, "format": "json"}
        if _LANGUAGE.fullmatch(language):
            params["language"] = language
        if self._narrowing.recency:
            params["time_range"] = self._narrowing.recency

        def read(answer: Any) -> list[Source | None]:
            return [
                source(
                    title=result.get("title"),
                    url=result["url"],
                    text=result.get("content"),
                    query=query,
                    origin="SearXNG",
                    published=result.get("publishedDate"),
                )
                for result in answer["results"]
            ]

        try:
            found = await self._web.ask("GET", "/search", read, params=params)
        except SearchError as error:
            if "status 403" not in error.message:
                raise
            hint = SearchError(
                f"{error.message} Its settings.yml must have json among search.formats."
            )
            hint.retryable = False
            raise hint from error
        return self._narrowing.admits(found)[:limit]

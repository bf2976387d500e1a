"""Searching the web with Perplexity: https://docs.perplexity.ai/api-reference/search-post."""

from __future__ import annotations

import re
from typing import Any

from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import Source
from ekiden.search.text import clean
from ekiden.search.web import Web, source

BASE_URL = "https://api.perplexity.ai"
MOST_RESULTS = 20  # what the API allows
MOST_DOMAINS = 20
LONGEST_QUERY = 2_000
_LANGUAGE = re.compile("[a-z]{2}")


class PerplexitySearch:
    """A search engine that asks Perplexity.

    Args:
        api_key: from PERPLEXITY_API_KEY.
        base_url: where the API is.
        narrowing: domains, and how new a page must be.
        timeout: seconds for one search.
    """

    name = "the web (Perplexity)"
    paid = True

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = BASE_URL,
        narrowing: Narrowing = ANYTHING,
        timeout: float = 30,
    ) -> None:
        self._narrowing = narrowing
        self._web = Web(
            "Perplexity",
            base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            variable="PERPLEXITY_API_KEY",
            timeout=timeout,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what Perplexity found, best first; an empty list when nothing fits.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        query = clean(query)[:LONGEST_QUERY]
        if not query or limit < 1:
            return []
        body: dict[str, Any] = {"query": query, "max_results": min(limit, MOST_RESULTS)}
        if _LANGUAGE.fullmatch(language):
            body["search_language_filter"] = [language]
        domains = [*self._narrowing.only, *(f"-{name}" for name in self._narrowing.never)]
        if domains:
            body["search_domain_filter"] = domains[:MOST_DOMAINS]
        if self._narrowing.recency:
            body["search_recency_filter"] = self._narrowing.recency

        def read(answer: Any) -> list[Source | None]:
            return [
                source(
                    title=result.get("title"),
                    url=result["url"],
                    text=result.get("snippet"),
                    query=query,
                    origin="Perplexity",
                    published=result.get("date"),
                )
                for result in answer["results"]
            ]

        found = await self._web.ask("POST", "/search", read, json=body)
        return self._narrowing.admits(found)[:limit]

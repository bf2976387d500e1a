"""Searching the web with Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/search."""

from __future__ import annotations

from typing import Any

from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import Source
from ekiden.search.text import clean
from ekiden.search.web import Web, source

BASE_URL = "https://api.tavily.com"
MOST_RESULTS = 20
LONGEST_QUERY = 400


class TavilySearch:
    """A search engine that asks Tavily.

    Args:
        api_key: from TAVILY_API_KEY.
        base_url: where the API is.
        narrowing: domains, and how new a page must be.
        timeout: seconds for one search.
    """

    name = "the web (Tavily)"
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
            "Tavily",
            base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            variable="TAVILY_API_KEY",
            timeout=timeout,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def search(
        self,
        query: str,
        *,
        limit: int = 5,
        language: str = "en",  # the API has no such filter: the query's own language decides
    ) -> list[Source]:
        """Return what Tavily found, best first; an empty list when nothing fits.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        query = clean(query)[:LONGEST_QUERY]
        if not query or limit < 1:
            return []

        def read(answer: Any) -> list[Source | None]:
            return [
                source(
                    title=result.get("title"),
                    url=result["url"],
                    text=result.get("content"),
                    query=query,
                    origin="Tavily",
                    published=result.get("published_date"),
                )
                for result in answer["results"]
            ]

        body: dict[str, Any] = {"query": query, "max_results": min(limit, MOST_RESULTS)}
        narrowed = {
            "include_domains": list(self._narrowing.only),
            "exclude_domains": list(self._narrowing.never),
            "time_range": self._narrowing.recency,
        }
        body |= {name: value for name, value in narrowed.items() if value}
        found = await self._web.ask("POST", "/search", read, json=body)
        return self._narrowing.admits(found)[:limit]

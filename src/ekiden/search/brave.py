"""Searching the web with Brave: https://api.search.brave.com/app/documentation/web-search/query."""

from __future__ import annotations

from typing import Any

from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import Source
from ekiden.search.reading import read_html
from ekiden.search.text import clean
from ekiden.search.web import Web, source

BASE_URL = "https://api.search.brave.com"
MOST_RESULTS = 20
LONGEST_QUERY = 400  # characters,
MOST_WORDS = 50
_LANGUAGES = {"ja": "jp", "en": "en"}  # as its list of languages has them


class BraveSearch:
    """A search engine that asks Brave.

    Args:
        api_key: from BRAVE_API_KEY.
        base_url: where the API is.
        narrowing: domains, and how new a page must be.
        timeout: seconds for one search.
    """

    name = "the web (Brave)"
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
            "Brave",
            base_url,
            headers={"X-Subscription-Token": api_key, "Accept": "application/json"},
            variable="BRAVE_API_KEY",
            timeout=timeout,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what Brave found, best first; an empty list when nothing fits.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        query = " ".join(clean(query).split()[:MOST_WORDS])[:LONGEST_QUERY]
        if not query or limit < 1:
            return []
        params = {"q": query, "count": str(min(limit, MOST_RESULTS))}
        if language in _LANGUAGES:
            params["search_lang"] = _LANGUAGES[language]
        if self._narrowing.recency:
            params["freshness"] = f"p{self._narrowing.recency[0]}"  # pd, pw, pm, py

        def read(answer: Any) -> list[Source | None]:
            web = answer.get("web") or {}  # left out when nothing was found
            return [
                source(
                    title=_plain(result.get("title")),
                    url=result["url"],
                    text=_plain(result.get("description")),
                    query=query,
                    origin="Brave",
                    published=result.get("page_age"),
                )
                for result in web.get("results") or []
            ]

        found = await self._web.ask("GET", "/res/v1/web/search", read, params=params)
        return self._narrowing.admits(found)[:limit]


def _plain(text: Any) -> str:
    """Return a text without the marks that show what of the query is in it."""
    return read_html(str(text or "")).body

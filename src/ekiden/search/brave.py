"""Searching the web with Brave.

https://api-dashboard.search.brave.com/app/documentation/web-search/query has the parameters, and
https://api-dashboard.search.brave.com/app/documentation/web-search/codes the codes of languages
and countries: Japanese is "jp" there, and not "ja".
"""

from __future__ import annotations

from typing import Any

from ekiden.search.engine import WebEngine
from ekiden.search.protocol import Source
from ekiden.search.reading import read_html
from ekiden.search.web import source

_MOST_WORDS = 50
# By language: its code, and the country whose results come first (the United States if not said).
_CODES = {
    "ja": {"search_lang": "jp", "country": "JP"},
    "en": {"search_lang": "en"},
}


class BraveSearch(WebEngine):
    """A search engine that asks Brave."""

    who = "Brave"
    own_url = "https://api.search.brave.com"
    variable = "BRAVE_API_KEY"

    @staticmethod
    def headers(api_key: str) -> dict[str, str]:
        """Return what each request is sent with."""
        return {"X-Subscription-Token": api_key, "Accept": "application/json"}

    def shortened(self, query: str) -> str:
        """Return as much of a query as the engine takes: it counts words as well."""
        return super().shortened(" ".join(query.split()[:_MOST_WORDS]))

    async def find(self, query: str, limit: int, language: str) -> list[Source]:
        """Ask Brave; see `WebEngine.find`."""
        params = {"q": query, "count": str(limit), **_CODES.get(language, {})}
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
                    origin=self.who,
                    published=result.get("page_age"),
                )
                for result in web.get("results") or []
            ]

        return await self._web.ask("GET", "/res/v1/web/search", read, params=params)


def _plain(text: Any) -> str:
    """Return a text without the marks that show what of the query is in it."""
    return read_html(str(text or "")).body

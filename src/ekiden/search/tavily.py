"""Searching the web with Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/search."""

from __future__ import annotations

from typing import Any

from ekiden.search.engine import WebEngine
from ekiden.search.protocol import Source
from ekiden.search.web import source


class TavilySearch(WebEngine):
    """A search engine that asks Tavily. It has no filter for languages: the query's own decides."""

    who = "Tavily"
    own_url = "https://api.tavily.com"
    variable = "TAVILY_API_KEY"

    async def find(self, query: str, limit: int, language: str) -> list[Source]:
        """Ask Tavily; see `WebEngine.find`."""

        def read(answer: Any) -> list[Source | None]:
            return [
                source(
                    title=result.get("title"),
                    url=result["url"],
                    text=result.get("content"),
                    query=query,
                    origin=self.who,
                    published=result.get("published_date"),
                )
                for result in answer["results"]
            ]

        body: dict[str, Any] = {"query": query, "max_results": limit}
        narrowed = {
            "include_domains": list(self._narrowing.only),
            "exclude_domains": list(self._narrowing.never),
            "time_range": self._narrowing.recency,
        }
        body |= {name: value for name, value in narrowed.items() if value}
        return await self._web.ask("POST", "/search", read, json=body)

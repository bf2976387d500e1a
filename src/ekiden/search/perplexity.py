"""Searching the web with Perplexity: https://docs.perplexity.ai/api-reference/search-post."""

from __future__ import annotations

import re
from typing import Any

from ekiden.search.engine import WebEngine
from ekiden.search.protocol import Source
from ekiden.search.web import source

_MOST_DOMAINS = 20
_LANGUAGE = re.compile("[a-z]{2}")


class PerplexitySearch(WebEngine):
    """A search engine that asks Perplexity."""

    who = "Perplexity"
    own_url = "https://api.perplexity.ai"
    variable = "PERPLEXITY_API_KEY"
    longest_query = 2_000

    async def find(self, query: str, limit: int, language: str) -> list[Source]:
        """Ask Perplexity; see `WebEngine.find`."""
        body: dict[str, Any] = {"query": query, "max_results": limit}
        if _LANGUAGE.fullmatch(language):
            body["search_language_filter"] = [language]
        domains = [*self._narrowing.only, *(f"-{name}" for name in self._narrowing.never)]
        if domains:
            body["search_domain_filter"] = domains[:_MOST_DOMAINS]
        if self._narrowing.recency:
            body["search_recency_filter"] = self._narrowing.recency

        def read(answer: Any) -> list[Source | None]:
            return [
                source(
                    title=result.get("title"),
                    url=result["url"],
                    text=result.get("snippet"),
                    query=query,
                    origin=self.who,
                    published=result.get("date"),
                )
                for result in answer["results"]
            ]

        return await self._web.ask("POST", "/search", read, json=body)

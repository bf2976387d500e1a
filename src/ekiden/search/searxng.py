"""Searching with a SearXNG of one's own: https://docs.searxng.org/dev/search_api.html."""

from __future__ import annotations

import re
from typing import Any

from ekiden.errors import SearchError
from ekiden.search.engine import WebEngine
from ekiden.search.protocol import Source
from ekiden.search.web import source

_LANGUAGE = re.compile("[a-z]{2}")


class SearxngSearch(WebEngine):
    """A search engine that asks a SearXNG."""

    who = "SearXNG"
    variable = None
    paid = False
    most_results = 1_000  # it has no such bound; its pages are as long as it likes
    longest_query = 1_000

    @staticmethod
    def headers(api_key: str) -> dict[str, str]:
        """Return what each request is sent with: it wants no key."""
        del api_key
        return {}

    async def find(self, query: str, limit: int, language: str) -> list[Source]:
        """Ask the SearXNG; see `WebEngine.find`."""
        del limit  # cannot be told
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
                    origin=self.who,
                    published=result.get("publishedDate"),
                )
                for result in answer["results"]
            ]

        try:
            return await self._web.ask("GET", "/search", read, params=params)
        except SearchError as error:
            if "status 403" not in error.message:
                raise
            hint = SearchError(
                f"{error.message} Its settings.yml must have json among search.formats."
            )
            hint.retryable = False
            raise hint from error

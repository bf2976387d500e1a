"""Searching the web with Perplexity's search API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from ekiden.errors import SearchError
from ekiden.search.protocol import Source
from ekiden.search.text import best_passage, clean

BASE_URL = "https://api.perplexity.ai"
MOST_RESULTS = 20  # what the API allows
LONGEST_QUERY = 2_000
_LANGUAGE = re.compile("[a-z]{2}")


class PerplexitySearch:
    """A search engine that asks Perplexity.

    Args:
        api_key: from PERPLEXITY_API_KEY.
        base_url: where the API is.
        timeout: seconds for one search.
    """

    def __init__(self, api_key: str, *, base_url: str = BASE_URL, timeout: float = 30) -> None:
        self._client = httpx2.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout
        )

    @property
    def name(self) -> str:
        """What is searched."""
        return "the web (Perplexity)"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

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
        try:
            response = await self._client.post("/search", json=body)
        except httpx2.TimeoutException as error:
            raise SearchError("Perplexity did not answer in time.") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise SearchError(f"Perplexity cannot be reached: {reason}") from error
        if response.status_code != httpx2.codes.OK:
            raise _refusal(response)
        try:
            results = response.json()["results"]
            found = [_source(result, query) for result in results]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SearchError("Perplexity's answer is not in the form it documents.") from error
        return [source for source in found if source is not None][:limit]


def _source(result: Mapping[str, Any], query: str) -> Source | None:
    url = clean(str(result["url"]))
    if not url.lower().startswith(("https://", "http://")):
        return None  # nothing a person could open
    return Source(
        title=clean(str(result.get("title") or "")) or url,
        url=url,
        snippet=best_passage(str(result.get("snippet") or ""), query),
        origin="Perplexity",
        published=_iso_date(result.get("date")),
    )


def _iso_date(value: object) -> str | None:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return None


def _refusal(response: httpx2.Response) -> SearchError:
    status = response.status_code
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        return SearchError(
            "Perplexity asks us to come back later (429).", retry_after=_retry_after(response)
        )
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return SearchError(
            f"Perplexity failed with status {status}.", retry_after=_retry_after(response)
        )
    hint = " Check PERPLEXITY_API_KEY." if status in {401, 403} else ""
    error = SearchError(f"Perplexity refused the search with status {status}.{hint}")
    error.retryable = False
    return error


def _retry_after(response: httpx2.Response) -> float | None:
    """Return how many seconds we were asked to wait, given as a number or as a date."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            due = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (due.replace(tzinfo=due.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None

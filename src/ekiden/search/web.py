"""Asking a search service over HTTP: bounded, never redirected, its failures told in sentences."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from ekiden.errors import SearchError
from ekiden.providers.addresses import checked_url, is_loopback
from ekiden.providers.failures import retry_after
from ekiden.providers.limits import number
from ekiden.search.protocol import Source
from ekiden.search.text import best_passage, clean

MOST_BYTES = 5_000_000  # of an answer; a page of results has some ten thousand


class Web:
    """One service.

    Args:
        who: as people are told.
        base_url: where it is.
        headers: sent with each request, to this address only.
        variable: that has its key, named when it refuses.
        timeout: seconds for one search, all in all.

    Raises:
        SettingsError: the address is none.
    """

    def __init__(
        self,
        who: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        variable: str | None = None,
        timeout: float = 30,
    ) -> None:
        base_url = checked_url(base_url)
        self._who = who
        self._variable = variable
        self._timeout = timeout
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=timeout,
            follow_redirects=False,
            trust_env=not is_loopback(base_url),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[Any], list[Source | None]],
        **arguments: Any,
    ) -> list[Source]:
        """Send one request, and return what ``read`` makes of its JSON; what it drops is left out.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._body(method, path, arguments)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise SearchError(f"{self._who} did not answer in time.") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise SearchError(f"{self._who} cannot be reached: {reason}") from error
        try:
            found = read(json.loads(body.decode("utf-8", "replace"), strict=False))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SearchError(f"{self._who}'s answer is not in the form it documents.") from error
        return [source for source in found if source is not None]

    async def _body(self, method: str, path: str, arguments: dict[str, Any]) -> bytes:
        async with self._client.stream(method, path, **arguments) as response:
            if response.status_code != httpx2.codes.OK:
                raise self._refusal(response)
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise SearchError(f"{self._who}'s answer is longer than {MOST_BYTES:,} bytes.")
            return bytes(body)

    def _refusal(self, response: httpx2.Response) -> SearchError:
        status = response.status_code
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            return SearchError(
                f"{self._who} asks us to come back later (429).",
                retry_after=_wait(response.headers),
            )
        if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            return SearchError(
                f"{self._who} failed with status {status}.", retry_after=_wait(response.headers)
            )
        refused = self._variable is not None and status in {401, 403}
        hint = f" Check {self._variable}." if refused else ""
        error = SearchError(f"{self._who} refused the search with status {status}.{hint}")
        error.retryable = False
        return error


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return how long we were asked to wait.

    Brave says it by window, "0, 900" left and "1, 141970" seconds until they begin anew:
    https://api.search.brave.com/app/documentation/web-search/response-headers
    """
    if (seconds := retry_after(headers)) is not None:
        return seconds
    left = headers.get("x-ratelimit-remaining", "").split(",")
    resets = headers.get("x-ratelimit-reset", "").split(",")
    waits = [
        wait
        for remaining, reset in zip(left, resets, strict=False)
        if number(remaining) == 0 and (wait := number(reset)) is not None and wait >= 0
    ]
    return max(waits, default=None)


def source(
    *, title: Any, url: Any, text: Any, query: str, origin: str, published: Any
) -> Source | None:
    """Return what was found as a source; None when there is nothing that a person could open."""
    address = clean(str(url))
    if not address.lower().startswith(("https://", "http://")):
        return None
    return Source(
        title=clean(str(title or "")) or address,
        url=address,
        snippet=best_passage(str(text or ""), query),
        origin=origin,
        published=iso_date(published),
    )


def iso_date(value: object) -> str | None:
    """Return the day of a date in any of the forms that services write it; None if it is none."""
    text = str(value or "")
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).date().isoformat() if _is_sane(moment) else None


def _is_sane(moment: datetime) -> bool:
    return 1900 < moment.year < 9000  # what lies outside cannot be moved to UTC everywhere

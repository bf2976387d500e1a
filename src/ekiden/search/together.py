"""Several search engines as one, and each page once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from urllib.parse import parse_qsl, urlencode, urlsplit

from ekiden.search.protocol import SearchEngine, Source

# What is added to addresses to count visitors; the page is the same without it.
_COUNTS = ("utm_", "fbclid", "gclid", "mc_cid", "mc_eid")


class Together:
    """Asks all engines side by side and takes from each in turn, best first.

    When one fails, the search fails: what is left out must not look as if it were not there.

    Args:
        engines: at least one; what comes earlier goes before.
    """

    def __init__(self, engines: Sequence[SearchEngine]) -> None:
        self._engines = engines

    @property
    def name(self) -> str:
        """What is searched."""
        return " + ".join(engine.name for engine in self._engines)

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what was found, each page once; see `SearchEngine.search`."""
        answers = await asyncio.gather(
            *(engine.search(query, limit=limit, language=language) for engine in self._engines),
            return_exceptions=True,
        )
        found: list[list[Source]] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
        in_turn = (source for row in zip_longest(*found) for source in row if source is not None)
        return without_repeats(in_turn)[:limit]


def without_repeats(sources: Iterable[Source]) -> list[Source]:
    """Return the sources, each page once."""
    return list({page_of(source.url): source for source in reversed(list(sources))}.values())[::-1]


def page_of(url: str) -> str:
    """Return an address without what does not change the page it leads to."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.")
        port = f":{parts.port}" if parts.port not in {None, 80, 443} else ""
    except ValueError:
        return url
    query = [
        pair
        for pair in parse_qsl(parts.query, keep_blank_values=True)
        if not pair[0].startswith(_COUNTS)
    ]
    kind = "" if parts.scheme in {"http", "https"} else parts.scheme
    return f"{kind}//{host}{port}{parts.path.rstrip('/')}?{urlencode(sorted(query))}"

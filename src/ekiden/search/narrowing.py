"""What a search on the web is narrowed to: domains, and how new a page must be.

A service that has such filters is told; what it lets through all the same is left out here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from ekiden.errors import SettingsError
from ekiden.search.protocol import Source

RECENCIES = ("day", "week", "month", "year")


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """EKIDEN_SEARCH_DOMAINS and EKIDEN_SEARCH_RECENCY."""

    only: tuple[str, ...] = ()  # domains; with their subdomains
    never: tuple[str, ...] = ()
    recency: str | None = None  # one of RECENCIES

    def admits(self, sources: Iterable[Source]) -> list[Source]:
        """Return the sources from the right domains."""
        return [source for source in sources if self._is_right(source.url)]

    def _is_right(self, url: str) -> bool:
        host = (urlsplit(url).hostname or "").lower()

        def within(domains: tuple[str, ...]) -> bool:
            return any(host == domain or host.endswith(f".{domain}") for domain in domains)

        return (not self.only or within(self.only)) and not within(self.never)


ANYTHING = Narrowing()


def narrowing(domains: str, recency: str) -> Narrowing:
    """Read the two settings.

    Raises:
        SettingsError: one of them cannot be meant so.
    """
    named = [name.strip().lower() for name in domains.split(",") if name.strip()]
    for name in named:
        if "/" in name or "." not in name or " " in name:
            raise SettingsError(
                f"EKIDEN_SEARCH_DOMAINS: {name!r} is not a domain. Like this: "
                "example.org,-example.com (a minus leaves one out)."
            )
    recency = recency.strip().lower()
    if recency and recency not in RECENCIES:
        raise SettingsError(
            f"EKIDEN_SEARCH_RECENCY={recency!r}: it may be {', '.join(RECENCIES)}, or empty."
        )
    return Narrowing(
        only=tuple(name for name in named if not name.startswith("-")),
        never=tuple(name.removeprefix("-") for name in named if name.startswith("-")),
        recency=recency or None,
    )

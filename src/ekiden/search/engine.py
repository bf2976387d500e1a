"""What all search engines on the web have in common: who they are, their bounds, their filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import Source
from ekiden.search.text import clean
from ekiden.search.web import Web


class WebEngine(ABC):
    """A search engine somewhere else.

    Args:
        api_key: what it is asked with; empty for one that wants none.
        base_url: where it is; its own address when empty.
        narrowing: domains, and how new a page must be.
        timeout: seconds for one search.

    Raises:
        SettingsError: the address is none.
    """

    who: ClassVar[str]  # as people know it
    own_url: ClassVar[str] = ""
    variable: ClassVar[str | None]  # that has its key, named when it refuses
    paid: ClassVar[bool] = True  # each search costs something
    most_results: ClassVar[int] = 20
    longest_query: ClassVar[int] = 400  # characters

    def __init__(
        self,
        api_key: str = "",
        *,
        base_url: str = "",
        narrowing: Narrowing = ANYTHING,
        timeout: float = 30,
    ) -> None:
        self._narrowing = narrowing
        self._web = Web(
            self.who,
            base_url or self.own_url,
            headers=self.headers(api_key),
            variable=self.variable,
            timeout=timeout,
        )

    @property
    def name(self) -> str:
        """What is searched."""
        return f"the web ({self.who})"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._web.aclose()

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what was found, best first; an empty list when nothing fits.

        Raises:
            SearchError: it could not be asked, or refused; ``retry_after`` when it said so.
        """
        query = self.shortened(clean(query))
        if not query or limit < 1:
            return []
        found = await self.find(query, min(limit, self.most_results), language)
        return self._narrowing.admits(found)[:limit]

    def shortened(self, query: str) -> str:
        """Return as much of a query as the engine takes."""
        return query[: self.longest_query]

    @staticmethod
    def headers(api_key: str) -> dict[str, str]:
        """Return what each request is sent with."""
        return {"Authorization": f"Bearer {api_key}"}

    @abstractmethod
    async def find(self, query: str, limit: int, language: str) -> list[Source]:
        """Ask the engine, and return what it found, whatever the domain."""

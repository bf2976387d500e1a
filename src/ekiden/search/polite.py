"""A search engine that is asked with manners: a cap, its rate limits, and a breaker."""

from __future__ import annotations

from ekiden.providers.manners import Manners
from ekiden.search.protocol import SearchEngine, Source


class PoliteSearch:
    """Asks an engine when it is our turn.

    Args:
        engine: that is asked.
        manners: how.
    """

    def __init__(self, engine: SearchEngine, manners: Manners) -> None:
        self._engine = engine
        self._manners = manners

    @property
    def name(self) -> str:
        """What is searched."""
        return self._engine.name

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what the engine finds; see `SearchEngine.search`.

        Raises:
            NotNow: it is not to be asked yet; nothing was sent.
        """
        async with self._manners.turn():
            return await self._engine.search(query, limit=limit, language=language)

"""Parts that become what they are when they are first needed.

A flow that asks no model and searches nothing must not download either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from ekiden.errors import DatabaseError, SearchError
from ekiden.providers.catalog import SERVICES, Catalog, ProviderSettings
from ekiden.providers.choose import choose
from ekiden.providers.protocol import Answer, KeepsAnswers, ModelRequest, Provider, RawAnswer, Usage
from ekiden.search.corpus import ensure_corpus
from ekiden.search.documents import DocumentSearch
from ekiden.search.protocol import Source
from ekiden.store.documents import Documents


class LateProvider:
    """A provider whose server could not be asked yet which models it has.

    Each request tries to choose again, so that a step fails with the reason and heals by itself
    when the server is back.
    """

    def __init__(self, settings: ProviderSettings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._chosen: Provider | None = None
        # Reads answers of the ledger while nothing was chosen yet.
        url = settings.base_urls.get("openai") or SERVICES["openai"].url
        self._reader = catalog.compatible("openai", url, "unknown", settings.keys.get("openai"))
        self.base_url = self._reader.base_url

    @property
    def name(self) -> str:
        """Short name stored with each call."""
        return self._provider.name

    @property
    def model(self) -> str:
        """The model asked; "unknown" until its server has answered once."""
        return self._provider.model

    @property
    def _provider(self) -> Provider:
        return self._chosen or self._reader

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`."""
        chosen = await self._choose()
        return await chosen.send(request, on_text=on_text, on_id=on_id, on_usage=on_usage)

    async def fetch(self, answer_id: str) -> RawAnswer | None:
        """Return a stored answer; see `KeepsAnswers.fetch`."""
        chosen = await self._choose()
        return await chosen.fetch(answer_id) if isinstance(chosen, KeepsAnswers) else None

    async def _choose(self) -> Provider:
        if self._chosen is None:
            self._chosen = await choose(self._settings, self._catalog)
        return self._chosen

    def read(self, raw: RawAnswer) -> Answer:
        """Understand a raw answer; see `Provider.read`."""
        return self._provider.read(raw)

    async def close(self) -> None:
        """Close what the catalog does not know of."""
        await self._reader.close()


class LateSearch:
    """Searches the documents; fetches the demo corpus first when there are none at all.

    Args:
        search: over the documents.
        documents: what it searches.
        home: EKIDEN_HOME, where the corpus is kept.
        tell: hears what is fetched, in sentences for people.
    """

    def __init__(
        self,
        search: DocumentSearch,
        documents: Documents,
        home: Path,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._search = search
        self._documents = documents
        self._home = home
        self._tell = tell
        self._ready = False
        self._one_at_a_time = asyncio.Lock()

    @property
    def name(self) -> str:
        """What is searched."""
        return self._search.name

    async def ready(self) -> int:
        """See to it that there is something to search, and return how many documents there are.

        Raises:
            SearchError: there is nothing, and the demo corpus cannot be fetched; says what to do.
        """
        async with self._one_at_a_time:
            if not self._ready:
                try:
                    if not await self._search.count():
                        await ensure_corpus(self._documents, self._home, self._tell)
                except DatabaseError as error:
                    raise SearchError(f"The documents cannot be kept: {error.message}") from error
                self._ready = True
            return await self._search.count()

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return the best documents; see `SearchEngine.search`."""
        if not self._ready:
            await self.ready()
        return await self._search.search(query, limit=limit, language=language)

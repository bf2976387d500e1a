"""A paid search engine that is asked the same thing once a day."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import orjson
from pydantic import TypeAdapter

from ekiden.errors import DatabaseError
from ekiden.search.narrowing import ANYTHING, Narrowing
from ekiden.search.protocol import SearchEngine, Source
from ekiden.search.text import clean

_SOURCES = TypeAdapter(list[Source])


class SearchStore(Protocol):
    """What keeps searches; ``ekiden.store.searches.Searches`` is one."""

    async def found(self, engine: str, asked: bytes, /) -> str | None:
        """Return what an engine found today, as it was kept; None: it was not asked."""
        ...

    async def keep(self, engine: str, asked: bytes, found: str, /) -> None:
        """Keep what an engine found today."""
        ...


class CachedSearch:
    """Asks an engine what it was not asked today.

    A store that cannot be reached is passed over: then the search is paid for again.

    Args:
        engine: that is paid.
        store: keeps what it found.
        narrowing: what the engine narrows its searches to.
    """

    def __init__(
        self, engine: SearchEngine, store: SearchStore, narrowing: Narrowing = ANYTHING
    ) -> None:
        self._engine = engine
        self._store = store
        self._narrowing = repr(narrowing)

    @property
    def name(self) -> str:
        """What is searched."""
        return self._engine.name

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what the engine finds, or found today; see `SearchEngine.search`."""
        asked = hashlib.sha256(
            orjson.dumps([clean(query), limit, language, self._narrowing])
        ).digest()
        try:
            kept = await self._store.found(self.name, asked)
        except DatabaseError:
            kept = None
        if kept is not None:
            return _SOURCES.validate_json(kept)
        found: Sequence[Source] = await self._engine.search(query, limit=limit, language=language)
        with suppress(DatabaseError):  # the ledger keeps it for this task all the same
            await self._store.keep(self.name, asked, _SOURCES.dump_json(list(found)).decode())
        return list(found)

"""Builds the concrete parts out of the settings: database, provider, search, worker.

What builds a part imports it: most commands need the database alone, and start sooner without the
rest.
"""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg
import uvloop

from ekiden.config import Settings
from ekiden.errors import ModelError
from ekiden.store.connection import open_pool
from ekiden.store.embedded import EmbeddedServer
from ekiden.store.migrate import migrate
from ekiden.store.sessions import Sessions

if TYPE_CHECKING:
    from ekiden.flows.registry import CompiledFlow
    from ekiden.providers.catalog import Catalog, ProviderSettings
    from ekiden.providers.models import Progress
    from ekiden.providers.models_by_place import Models
    from ekiden.providers.protocol import Provider
    from ekiden.search.protocol import SearchEngine
    from ekiden.store.documents import Documents
    from ekiden.worker.worker import Worker

T = TypeVar("T")

Tell = Callable[[str], None]


class Database:
    """DATABASE_URL, or the embedded server for as long as this is open.

    Open it in the main thread, before the event loop: the kernel binds the server's life to the
    thread that starts it.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url.get_secret_value()
        self._listen_url = settings.listen_url.get_secret_value()
        self.server = None if self._url else EmbeddedServer(settings.home)

    def __enter__(self) -> Self:
        if self.server is not None:
            self.server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.server is not None:
            self.server.stop()

    def dsn(self) -> str:
        """Return how to connect; starts the embedded server again if its owner took it along."""
        return self._url if self.server is None else self.server.ensure()

    def listen_dsn(self) -> str:
        """Return how to connect for LISTEN and locks, which a transaction pooler cannot carry."""
        return self._listen_url or self.dsn()


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on the fast loop."""
    return uvloop.run(main)


@asynccontextmanager
async def open_store(database: Database) -> AsyncIterator[tuple[asyncpg.Pool, Sessions]]:
    """Connect, bring the schema up to date, and give the pool and the sessions.

    Raises:
        DatabaseUnreachable: says which address.
        MigrationError: the schema does not fit this version.
    """
    dsn = database.dsn()
    await migrate(dsn)
    async with open_pool(dsn) as pool:
        yield pool, Sessions(pool, dsn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker needs besides its flows."""

    provider: Provider  # where no other is named
    models: Models  # by place
    model: str  # the provider, in words
    search: SearchEngine
    documents: Documents


@asynccontextmanager
async def open_parts(
    settings: Settings,
    pool: asyncpg.Pool,
    dsn: str,
    *,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> AsyncIterator[Parts]:
    """Build provider and search.

    Args:
        settings: decide which.
        pool: connections for the documents.
        dsn: where those are.
        progress: hears about the download of the embedded model, from another thread.
        tell: hears about the demo corpus, in sentences.

    Raises:
        SettingsError: EKIDEN_MODEL…, EKIDEN_SEARCH or what they need is wrong.
    """
    from ekiden.cli.searching import build_search
    from ekiden.providers.catalog import Catalog
    from ekiden.providers.choose import describe
    from ekiden.store.documents import Documents

    async with AsyncExitStack() as stack:
        catalog = Catalog(provider_settings(settings), progress)
        stack.push_async_callback(catalog.close)
        provider = await build_provider(settings, catalog)
        stack.push_async_callback(provider.close)
        models = build_models(settings, provider, catalog)
        documents = Documents(pool, dsn)
        search = build_search(settings, pool, dsn, stack, tell)
        yield Parts(
            provider=provider,
            models=models,
            model="; ".join(
                [describe(provider), *(f"{place}: {m}" for place, m in settings.models.items())]
            ),
            search=search,
            documents=documents,
        )


async def build_provider(settings: Settings, catalog: Catalog) -> Provider:
    """Return the provider that the settings and this machine give where no other is named.

    Raises:
        SettingsError: EKIDEN_MODEL or what it needs is wrong.
    """
    from ekiden.cli.late import LateProvider
    from ekiden.providers.choose import choose

    chosen_by = provider_settings(settings)
    try:
        return await choose(chosen_by, catalog)
    except ModelError:
        # The server at OPENAI_BASE_URL is down. It may be back when a step asks; until then each
        # step fails with the reason, is retried, and the session says why.
        return LateProvider(chosen_by, catalog)


def build_models(settings: Settings, default: Provider, catalog: Catalog) -> Models:
    """Return the models by place.

    Raises:
        SettingsError: EKIDEN_MODEL_… or EKIDEN_FALLBACK_MODEL… is wrong.
    """
    from ekiden.providers.models_by_place import Models

    models = Models(
        default,
        build=catalog.get,
        places=settings.models,
        fallback=settings.fallback_model or None,
        fallbacks=settings.fallback_models,
        askable=catalog.askable(),
    )
    models.check()
    return models


def provider_settings(settings: Settings) -> ProviderSettings:
    """Return the part of the settings that decides who answers."""
    from ekiden.providers.catalog import SERVICES, ProviderSettings

    return ProviderSettings(
        home=settings.home,
        model=settings.model or None,
        keys={
            name: key
            for name in SERVICES
            if (key := getattr(settings, f"{name}_api_key").get_secret_value())
        },
        base_urls={
            name: url for name in SERVICES if (url := getattr(settings, f"{name}_base_url"))
        },
        store_answers=settings.store_answers,
        background=frozenset(filter(None, map(str.strip, settings.background.split(",")))),
        calls_at_once=settings.calls_at_once,
    )


def build_worker(
    settings: Settings,
    database: Database,
    flows: Sequence[CompiledFlow],
    parts: Parts,
    *,
    only_session: str | None = None,
    drain: float = 30.0,
) -> Worker:
    """Return a worker, not yet running."""
    from ekiden.worker.worker import Worker, WorkerOptions

    return Worker(
        database.dsn,
        flows,
        listen_dsn=database.listen_dsn,
        models=parts.models,
        search=parts.search,
        model=f"{parts.provider.name}:{parts.provider.model}",
        options=WorkerOptions(
            capacity=settings.worker_batch_size,
            poll_interval=settings.worker_poll_interval / 1000,
            lease=timedelta(seconds=settings.lease),
            drain=drain,
            only_session=only_session,
            alerts=settings.alert_limits(),
            feed_interval=float(settings.feed_interval),
        ),
    )


def actor() -> str:
    """Return who sits at this terminal, for the record of a review."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        return "cli"


def is_embedded_model_missing(provider: Provider, home: Path) -> bool:
    """Return whether the embedded model would have to be fetched first."""
    from ekiden.providers.models import embedded_model

    return provider.name == "embedded" and embedded_model(home) is None

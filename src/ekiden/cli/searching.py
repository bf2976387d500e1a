"""Builds what ``ctx.search`` asks, out of the settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg

from ekiden.cli.late import LateSearch
from ekiden.config import Settings
from ekiden.errors import SettingsError
from ekiden.providers.manners import Manners
from ekiden.search.cached import CachedSearch
from ekiden.search.documents import DocumentSearch
from ekiden.search.narrowing import ANYTHING, Narrowing, narrowing
from ekiden.search.polite import PoliteSearch
from ekiden.search.protocol import SearchEngine
from ekiden.search.together import Together
from ekiden.store.documents import Documents
from ekiden.store.searches import Searches

if TYPE_CHECKING:
    from ekiden.search.engine import WebEngine

DOCUMENTS = "documents"
# What each needs, in the order in which the first that is there is taken.
NEEDS = {
    "perplexity": "PERPLEXITY_API_KEY",
    "tavily": "TAVILY_API_KEY",
    "brave": "BRAVE_API_KEY",
    "searxng": "SEARXNG_URL",
}


def build_search(
    settings: Settings,
    pool: asyncpg.Pool,
    dsn: str,
    stack: AsyncExitStack,
    tell: Callable[[str], None] | None = None,
) -> SearchEngine:
    """Return what is searched.

    Args:
        settings: decide what.
        pool: connections for documents and kept searches.
        dsn: where those are.
        stack: closes the engines.
        tell: hears about the demo corpus, in sentences.

    Raises:
        SettingsError: EKIDEN_SEARCH names what there is not or is not set up, or what a search
            is narrowed to cannot be meant so.
    """
    narrowed = narrowing(settings.search_domains, settings.search_recency)
    engines: list[SearchEngine] = []
    for name in chosen(settings):
        if name == DOCUMENTS:
            documents = Documents(pool, dsn)
            engines.append(LateSearch(DocumentSearch(documents), documents, settings.home, tell))
            continue
        web = web_engine(settings, name, narrowed)
        stack.push_async_callback(web.aclose)
        manners = Manners(web.name, at_once=settings.searches_at_once)
        engine: SearchEngine = PoliteSearch(web, manners)
        if web.paid:
            engine = CachedSearch(engine, Searches(pool, dsn), narrowed)
        engines.append(engine)
    # Documents alone are each there once; and their name changes as they are counted.
    only_documents = len(engines) == 1 and isinstance(engines[0], LateSearch)
    return engines[0] if only_documents else Together(engines)


def chosen(settings: Settings) -> list[str]:
    """Return the names of the engines to ask.

    Raises:
        SettingsError: EKIDEN_SEARCH names what there is not, or what is not set up.
    """
    names = [name.strip().lower() for name in settings.search.split(",") if name.strip()]
    for name in names:
        if name not in (*NEEDS, DOCUMENTS):
            raise SettingsError(
                f"EKIDEN_SEARCH={settings.search!r}: {name!r} is no search engine. "
                f"There are: {', '.join((*NEEDS, DOCUMENTS))}."
            )
        if name in NEEDS and not _given(settings, name):
            raise SettingsError(
                f"EKIDEN_SEARCH={settings.search!r} needs {NEEDS[name]}, which is not set."
            )
    if names:
        return list(dict.fromkeys(names))
    return [next((name for name in NEEDS if _given(settings, name)), DOCUMENTS)]


def configured(settings: Settings) -> list[str]:
    """Return the names of the web engines that could be asked."""
    return [name for name in NEEDS if _given(settings, name)]


def web_engine(settings: Settings, name: str, narrowed: Narrowing = ANYTHING) -> WebEngine:
    """Return a web engine by its name.

    Raises:
        SettingsError: its address is none.
    """
    at_home = name == "searxng"  # what is given is its address
    key = "" if at_home else _given(settings, name)
    url = _given(settings, name) if at_home else getattr(settings, f"{name}_base_url")
    try:
        return _engine(name)(key, base_url=url, narrowing=narrowed)
    except SettingsError as error:
        variable = NEEDS[name] if at_home else f"{name.upper()}_BASE_URL"
        raise SettingsError(f"{variable}: {error.message}") from None


def _engine(name: str) -> type[WebEngine]:
    """Return the class of an engine; imported late, for the HTTP library."""
    match name:
        case "perplexity":
            from ekiden.search.perplexity import PerplexitySearch

            return PerplexitySearch
        case "tavily":
            from ekiden.search.tavily import TavilySearch

            return TavilySearch
        case "brave":
            from ekiden.search.brave import BraveSearch

            return BraveSearch
        case _:
            from ekiden.search.searxng import SearxngSearch

            return SearxngSearch


def _given(settings: Settings, name: str) -> str:
    if name == "searxng":
        return settings.searxng_url
    key: str = getattr(settings, f"{name}_api_key").get_secret_value()
    return key

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from ekiden.cli.searching import build_search, chosen
from ekiden.config import Settings
from ekiden.errors import SettingsError
from ekiden.store.connection import open_pool


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ["documents"]),
        ({"searxng_url": "http://s"}, ["searxng"]),
        ({"searxng_url": "http://s", "brave_api_key": "k"}, ["brave"]),
        ({"brave_api_key": "k", "perplexity_api_key": "k"}, ["perplexity"]),
        ({"search": "documents", "perplexity_api_key": "k"}, ["documents"]),
        ({"search": "Tavily, documents,tavily", "tavily_api_key": "k"}, ["tavily", "documents"]),
    ],
)
def test_what_is_named_is_asked_else_the_first_that_is_set_up(given, names):
    assert chosen(Settings(**given)) == names


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"search": "google"}, "EKIDEN_SEARCH='google': .*There are: perplexity, tavily"),
        ({"search": "brave"}, "needs BRAVE_API_KEY"),
        ({"search": "searxng"}, "needs SEARXNG_URL"),
    ],
)
def test_a_wrong_name_is_one_line_that_names_the_variable(given, says):
    with pytest.raises(SettingsError, match=says):
        chosen(Settings(**given))


async def test_several_are_asked_as_one_and_a_wrong_address_is_named(database: str):
    async with open_pool(database) as pool, AsyncExitStack() as stack:
        both = Settings(search="tavily,documents", tavily_api_key="k")
        engine = build_search(both, pool, database, stack)
        assert engine.name == "the web (Tavily) + documents"
        with pytest.raises(SettingsError, match=r"^SEARXNG_URL: "):
            build_search(Settings(searxng_url="nowhere"), pool, database, stack)


def imported_by(*modules: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {', '.join(modules)}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_a_worker_starts_without_the_libraries_of_what_it_may_never_ask():
    slow = {"openai", "anthropic", "httpx2", "genai_prices", "xllamacpp"}
    slow |= {"feedparser", "pypdf", "docx", "lxml"}
    parts = ["cli.working", "cli.late", "cli.searching", "providers.choose"]
    parts += ["providers.models_by_place", "worker.worker"]
    assert not slow & imported_by(*(f"ekiden.{part}" for part in parts))


@pytest.mark.parametrize("command", ["desk", "deciding", "hooks", "pruning"])
def test_a_command_that_only_asks_the_database_starts_without_what_a_worker_needs(command: str):
    of_a_worker = {"ekiden.worker.worker", "ekiden.providers.catalog", "ekiden.search.documents"}
    assert not (of_a_worker | {"structlog", "jsonschema"}) & imported_by(f"ekiden.cli.{command}")

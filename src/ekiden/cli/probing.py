"""What ``ekiden doctor --providers`` finds out: one tiny call to whatever is set up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any

from ekiden.cli.compose import provider_settings
from ekiden.cli.finding import Finding
from ekiden.cli.searching import configured, web_engine
from ekiden.config import Settings
from ekiden.errors import EkidenError
from ekiden.providers.catalog import EMBEDDED_MODEL, SERVICES, Catalog
from ekiden.providers.choose import choose, local_models
from ekiden.providers.models import embedded_model
from ekiden.providers.protocol import Message, ModelRequest, Provider, Usage

_PATIENCE = 60.0  # seconds for one call
_TINY = ModelRequest(
    messages=(Message(role="user", content="Answer with the one word: ready"),),
    max_tokens=16,
    temperature=0.0,
)
_NONE = (
    "none has a key or an address, and none runs on this machine. "
    f"Set one of: {', '.join(service.variable for service in SERVICES.values())}, OPENAI_BASE_URL"
)


async def ask_each(settings: Settings) -> list[Finding]:
    """Ask every model and every search engine that is set up, once, side by side.

    A service is asked for the models that the settings name, else for its usual one.
    """
    catalog = Catalog(provider_settings(settings))
    try:
        asked: list[Coroutine[Any, Any, Finding]] = [
            _model(catalog, name) for name in await _named(settings)
        ]
        if settings.openai_base_url and not any(n.startswith("openai:") for n in _set(settings)):
            asked.append(_first_listed(settings, catalog))
        asked += [_search(settings, name) for name in configured(settings)]
        findings = [] if asked else [Finding(what="providers", state="note", message=_NONE)]
        findings += await asyncio.gather(*asked)
        if embedded_model(settings.home) is None:
            why = "not fetched yet; it will be when it is needed, or by: ekiden models pull"
            findings.append(Finding(what=f"embedded:{EMBEDDED_MODEL}", state="note", message=why))
        else:
            findings.append(await _model(catalog, f"embedded:{EMBEDDED_MODEL}"))
        return findings
    finally:
        await catalog.close()


def _set(settings: Settings) -> list[str]:
    """Return the models that the settings name."""
    named = [
        settings.model,
        settings.fallback_model,
        *settings.models.values(),
        *settings.fallback_models.values(),
    ]
    return list(dict.fromkeys(name.strip() for name in named if name.strip()))


async def _named(settings: Settings) -> list[str]:
    """Return the models to ask."""
    named = [name for name in _set(settings) if not name.lower().startswith("embedded:")]
    theirs = {name.partition(":")[0].lower() for name in named}
    keys = provider_settings(settings).keys
    for name, service in SERVICES.items():
        at_home = name == "openai" and settings.openai_base_url
        if name in keys and name not in theirs and not at_home:
            named.append(f"{name}:{service.model}")
    for name, listed in (await local_models()).items():
        if listed and name not in theirs:
            named.append(f"{name}:{listed[0]}")
    return named


async def _model(catalog: Catalog, name: str) -> Finding:
    try:
        return await _asked(name, catalog.get(name))
    except EkidenError as error:
        return Finding(what=name, state="broken", message=error.message)


async def _first_listed(settings: Settings, catalog: Catalog) -> Finding:
    try:
        provider = await choose(provider_settings(settings), catalog)
        return await _asked(f"{provider.name}:{provider.model}", provider)
    except EkidenError as error:
        return Finding(what="OPENAI_BASE_URL", state="broken", message=error.message)


async def _asked(name: str, provider: Provider) -> Finding:
    try:
        async with asyncio.timeout(_PATIENCE):
            begun = monotonic()
            raw = await provider.send(_TINY)
            took = raw.took or monotonic() - begun
    except TimeoutError:
        why = f"did not answer in {_PATIENCE:g} s"
        return Finding(what=name, state="broken", message=why)
    read = provider.read(raw)
    first = f", the first text after {raw.first_token:.2f} s" if raw.first_token else ""
    said = f"answers in {took:.2f} s{first}; {_spent(read.usage)}"
    cost = None if read.usage.cost_usd is None else float(read.usage.cost_usd)
    return Finding(what=name, state="ok", message=said, seconds=took, cost_usd=cost)


def _spent(usage: Usage) -> str:
    tokens = f"{_count(usage.input_tokens)} tokens in, {_count(usage.output_tokens)} out"
    if usage.cost_usd is None:
        return f"{tokens}; no price is known for it"
    return f"{tokens}; ${usage.cost_usd:.6f} ({usage.price_version})"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)


async def _search(settings: Settings, name: str) -> Finding:
    what = f"search {name}"
    try:
        engine = web_engine(settings, name)
        try:
            begun = monotonic()
            found = await engine.search("ekiden relay race", limit=1)
            took = monotonic() - begun
        finally:
            await engine.aclose()
    except EkidenError as error:
        return Finding(what=what, state="broken", message=error.message)
    price = "each search is paid for" if engine.paid else "costs nothing"
    told = f"answers in {took:.2f} s, {len(found)} of 1 found; {price}"
    return Finding(what=what, state="ok", message=told, seconds=took)

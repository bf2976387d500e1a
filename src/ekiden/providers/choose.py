"""Which model answers where nothing else is said: EKIDEN_MODEL, or the best that is here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ekiden.errors import ModelError, SettingsError
from ekiden.providers import catalog as known
from ekiden.providers.catalog import EMBEDDED_MODEL, SERVICES, Catalog, ProviderSettings
from ekiden.providers.protocol import Provider

if TYPE_CHECKING:
    import httpx2

_PROBE_SECONDS = 0.3
# What servers list beside chat models, by the names these kinds go by.
_NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "bge-", "dall-e", "moderation", "clip")


async def choose(settings: ProviderSettings, catalog: Catalog | None = None) -> Provider:
    """Return the provider to use where no other is named.

    In this order: EKIDEN_MODEL; a key or a base URL in the settings; a local server that answers
    (Ollama, LM Studio, vLLM); the embedded model.

    Raises:
        SettingsError: a setting is wrong or one is missing; one line, naming the variable.
        ModelError: the server at OPENAI_BASE_URL was to be asked for its models, and failed.
    """
    catalog = catalog or Catalog(settings)
    if settings.model and settings.model.strip():
        return catalog.get(settings.model.strip(), variable="EKIDEN_MODEL")
    if settings.base_urls.get("openai"):
        return await _first_listed(settings, catalog)
    for name, service in SERVICES.items():
        if settings.keys.get(name):
            return catalog.get(f"{name}:{service.model}", variable=service.variable)
    for name, models in (await local_models()).items():
        if models:
            return catalog.get(f"{name}:{models[0]}")
    return catalog.get(f"embedded:{EMBEDDED_MODEL}")


def describe(provider: Provider) -> str:
    """Return who answers, in words for people."""
    label = f"{provider.name}:{provider.model}"
    if provider.name == "embedded":
        return (
            f"{label} — SmolLM2-135M, runs here, no key; "
            "English is poor: it proves the mechanics, not the content"
        )
    url = getattr(provider, "base_url", None)
    return f"{label} — at {url}" if url else label


async def local_models() -> dict[str, list[str]]:
    """Return the chat models of the servers on this machine, by server; empty where none answers.

    Only loopback is asked, and only for a moment.
    """
    # In a thread and before the probes: importing it is slow, and reading the certificates too.
    client = await asyncio.to_thread(_direct_client)
    async with client:
        found = await asyncio.gather(*(_probe(client, url) for url in known.LOCAL_URLS.values()))
    return dict(zip(known.LOCAL_URLS, found, strict=True))


async def _first_listed(settings: ProviderSettings, catalog: Catalog) -> Provider:
    """Ask the server at OPENAI_BASE_URL for the first model it lists."""
    url, key = settings.base_urls["openai"], settings.keys.get("openai")
    try:
        asking = catalog.compatible("openai", url, "unknown", key)
    except SettingsError as error:
        raise SettingsError(f"OPENAI_BASE_URL: {error.message}") from None
    if asking.base_url == SERVICES["openai"].url:
        return catalog.get(f"openai:{SERVICES['openai'].model}")
    try:
        listed = _for_chat(await asking.models())
    except ModelError as error:
        name_it = f"OPENAI_BASE_URL: {error.message} To name a model: EKIDEN_MODEL=openai:NAME."
        raise type(error)(name_it, retry_after=error.retry_after) from error
    finally:
        await asking.close()
    if not listed:
        raise SettingsError(
            f"OPENAI_BASE_URL: {asking.base_url} lists no model; load one there, or name it: "
            "EKIDEN_MODEL=openai:NAME."
        )
    return catalog.get(f"openai:{listed[0]}")


def _for_chat(listed: list[str]) -> list[str]:
    return [name for name in listed if not any(word in name.lower() for word in _NOT_FOR_CHAT)]


def _direct_client() -> httpx2.AsyncClient:
    import httpx2  # noqa: PLC0415

    return httpx2.AsyncClient(trust_env=False, timeout=_PROBE_SECONDS)  # no proxy to loopback


async def _probe(client: httpx2.AsyncClient, url: str) -> list[str]:
    """Return the chat models a server lists; nothing if it is not there, slow, or another thing."""
    import httpx2  # noqa: PLC0415

    from ekiden.providers.openai_compatible import model_ids  # noqa: PLC0415

    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            answer = await client.get(f"{url}/models")
            return _for_chat(model_ids(answer.json()) or []) if answer.is_success else []
    except (TimeoutError, httpx2.HTTPError, ValueError):
        return []

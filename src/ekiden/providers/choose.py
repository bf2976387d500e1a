"""Which model answers: what the settings say, or the best there is on this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ekiden.errors import ModelError, SettingsError
from ekiden.providers.protocol import Provider

if TYPE_CHECKING:
    import httpx2

    from ekiden.providers.openai_compatible import OpenAICompatible

OPENAI_URL = "https://api.openai.com/v1"
PERPLEXITY_URL = "https://api.perplexity.ai"
# Anthropic's own compatibility layer: text and usage are exact; schemas go in the prompt.
ANTHROPIC_URL = "https://api.anthropic.com/v1"
LOCAL_URLS = {"ollama": "http://127.0.0.1:11434/v1", "lmstudio": "http://127.0.0.1:1234/v1"}

DEFAULT_MODELS = {
    "openai": "gpt-5-mini",
    "perplexity": "sonar",
    "anthropic": "claude-haiku-4-5",
    "embedded": "smollm2",
}
KNOWN = ("openai", "perplexity", "anthropic", "ollama", "lmstudio", "embedded")

_PROBE_SECONDS = 0.3
# What servers list beside chat models, by the names these kinds go by.
_NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "bge-", "dall-e", "moderation", "clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """The settings that decide who answers."""

    home: Path  # EKIDEN_HOME
    model: str | None = None  # EKIDEN_MODEL, "provider:model"
    openai_api_key: str | None = field(default=None, repr=False)  # OPENAI_API_KEY
    openai_base_url: str | None = None  # OPENAI_BASE_URL
    store_answers: bool = False  # EKIDEN_STORE_ANSWERS
    perplexity_api_key: str | None = field(default=None, repr=False)  # PERPLEXITY_API_KEY
    anthropic_api_key: str | None = field(default=None, repr=False)  # ANTHROPIC_API_KEY


async def choose(settings: ProviderSettings) -> Provider:
    """Return the provider to use.

    In this order: EKIDEN_MODEL; a key or a base URL in the settings; a local server that answers
    (Ollama, LM Studio); the embedded model.

    Raises:
        SettingsError: a setting is wrong or one is missing; one line, naming the variable.
        ModelError: the server at OPENAI_BASE_URL was to be asked for its models, and failed.
    """
    if settings.model and settings.model.strip():
        return _explicit(settings.model.strip(), settings)
    if settings.openai_base_url:
        return await _first_listed(settings)
    if settings.openai_api_key:
        return _explicit(f"openai:{DEFAULT_MODELS['openai']}", settings)
    if settings.perplexity_api_key:
        return _explicit(f"perplexity:{DEFAULT_MODELS['perplexity']}", settings)
    if settings.anthropic_api_key:
        return _explicit(f"anthropic:{DEFAULT_MODELS['anthropic']}", settings)
    return await _local_server() or _embedded(settings)


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


def _explicit(chosen: str, settings: ProviderSettings) -> Provider:
    """Build what ``provider:model`` names."""
    name, colon, model = chosen.partition(":")
    name, model = name.strip().lower(), model.strip()
    if name not in KNOWN or not colon or not model:
        raise SettingsError(
            f"EKIDEN_MODEL={chosen!r} is not provider:model, e.g. openai:gpt-5-mini or "
            f"embedded:smollm2. The providers: {', '.join(KNOWN)}."
        )
    if name == "embedded":
        if model != DEFAULT_MODELS["embedded"]:
            raise SettingsError(
                f"EKIDEN_MODEL={chosen!r}: the one embedded model is embedded:smollm2."
            )
        return _embedded(settings)
    if name == "openai":
        if not settings.openai_base_url:
            _need(settings.openai_api_key, "OPENAI_API_KEY (or OPENAI_BASE_URL)", chosen)
        return _openai(model, settings)
    if name == "perplexity":
        key = _need(settings.perplexity_api_key, "PERPLEXITY_API_KEY", chosen)
        return _compatible(name, PERPLEXITY_URL, model, key)
    if name == "anthropic":
        key = _need(settings.anthropic_api_key, "ANTHROPIC_API_KEY", chosen)
        return _compatible(name, ANTHROPIC_URL, model, key)
    return _compatible(name, LOCAL_URLS[name], model, None)


def _need(key: str | None, variable: str, chosen: str) -> str:
    if not key:
        raise SettingsError(f"EKIDEN_MODEL={chosen!r} needs {variable}, which is not set.")
    return key


def _embedded(settings: ProviderSettings) -> Provider:
    from ekiden.providers.embedded import EmbeddedModel  # noqa: PLC0415  -- keeps --help fast

    return EmbeddedModel(settings.home)


def _openai(model: str, settings: ProviderSettings) -> OpenAICompatible:
    url = settings.openai_base_url or OPENAI_URL
    try:
        return _compatible(
            "openai", url, model, settings.openai_api_key, store=settings.store_answers
        )
    except SettingsError as error:
        raise SettingsError(f"OPENAI_BASE_URL: {error.message}") from None


def _compatible(
    name: str, url: str, model: str, key: str | None, *, store: bool = False
) -> OpenAICompatible:
    from ekiden.providers.openai_compatible import OpenAICompatible  # noqa: PLC0415

    return OpenAICompatible(base_url=url, model=model, api_key=key, name=name, store=store)


async def _first_listed(settings: ProviderSettings) -> Provider:
    """Ask the server at OPENAI_BASE_URL for the first model it lists."""
    asking = _openai("", settings)
    if asking.base_url == OPENAI_URL:
        return _openai(DEFAULT_MODELS["openai"], settings)
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
    return _openai(listed[0], settings)


def _for_chat(listed: list[str]) -> list[str]:
    return [name for name in listed if not any(word in name.lower() for word in _NOT_FOR_CHAT)]


async def _local_server() -> Provider | None:
    # In a thread and before the probes: importing it is slow, and reading the certificates too.
    client = await asyncio.to_thread(_direct_client)
    async with client:
        found = await asyncio.gather(*(_probe(client, url) for url in LOCAL_URLS.values()))
    for (name, url), models in zip(LOCAL_URLS.items(), found, strict=True):
        if models:
            return _compatible(name, url, models[0], None)
    return None


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

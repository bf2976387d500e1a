"""Which providers there are, and building the one that ``provider:model`` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ekiden.errors import NotSetUp, SettingsError
from ekiden.providers.breaker import Breaker
from ekiden.providers.installed import has_anthropic
from ekiden.providers.manners import Manners
from ekiden.providers.protocol import Provider

if TYPE_CHECKING:
    from ekiden.providers.models import Progress
    from ekiden.providers.openai_compatible import OpenAICompatible


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A provider somewhere else, asked with a key."""

    url: str  # its own address
    variable: str  # that has the key
    url_variable: str  # that has another address
    model: str  # when none is named


SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        "openai": Service(
            url="https://api.openai.com/v1",
            variable="OPENAI_API_KEY",
            url_variable="OPENAI_BASE_URL",
            model="gpt-5-mini",
        ),
        "perplexity": Service(
            url="https://api.perplexity.ai",
            variable="PERPLEXITY_API_KEY",
            url_variable="PERPLEXITY_BASE_URL",
            model="sonar",
        ),
        "anthropic": Service(
            url="https://api.anthropic.com",
            variable="ANTHROPIC_API_KEY",
            url_variable="ANTHROPIC_BASE_URL",
            model="claude-haiku-4-5",
        ),
        "gemini": Service(
            url="https://generativelanguage.googleapis.com/v1beta/openai",
            variable="GEMINI_API_KEY",
            url_variable="GEMINI_BASE_URL",
            model="gemini-2.5-flash",
        ),
    }
)
# Servers that run on this machine, where they listen by default.
LOCAL_URLS = {
    "ollama": "http://127.0.0.1:11434/v1",
    "lmstudio": "http://127.0.0.1:1234/v1",
    "vllm": "http://127.0.0.1:8000/v1",
}
EMBEDDED_MODEL = "smollm2"
KNOWN = (*SERVICES, *LOCAL_URLS, "embedded")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """The settings that decide who answers."""

    home: Path  # EKIDEN_HOME
    model: str | None = None  # EKIDEN_MODEL, "provider:model"
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)  # by provider
    base_urls: Mapping[str, str] = field(default_factory=dict)  # by provider: not its own address
    store_answers: bool = False  # EKIDEN_STORE_ANSWERS
    background: frozenset[str] = frozenset()  # EKIDEN_BACKGROUND, "openai:model"
    calls_at_once: int = 64  # EKIDEN_CALLS_AT_ONCE


class Catalog:
    """Builds providers, each once, and gives those of one service one breaker."""

    def __init__(self, settings: ProviderSettings, progress: Progress | None = None) -> None:
        self._settings = settings
        self._progress = progress  # hears about the download of the embedded model
        self._built: dict[str, Provider] = {}
        self._breakers: dict[str, Breaker] = {}

    def get(self, chosen: str, *, variable: str | None = None) -> Provider:
        """Return what ``provider:model`` names.

        Args:
            chosen: the name.
            variable: that named it, for the error.

        Raises:
            NotSetUp: what it needs is not set; one line that says what to set.
            SettingsError: it is not such a name, or an address is none.
        """
        name, colon, model = chosen.partition(":")
        name, model = name.strip().lower(), model.strip()
        called = f"{variable}={chosen!r}" if variable else repr(chosen)
        if name not in KNOWN or not colon or not model:
            raise SettingsError(
                f"{called} is not provider:model, e.g. openai:gpt-5-mini or "
                f"embedded:smollm2. The providers: {', '.join(KNOWN)}."
            )
        known = f"{name}:{model}"
        if known not in self._built:
            try:
                self._built[known] = self._build(name, model)
            except SettingsError as error:
                raise type(error)(f"{called}: {error.message}") from None
        return self._built[known]

    async def close(self) -> None:
        """Close all that were built."""
        for provider in self._built.values():
            await provider.close()

    def _build(self, name: str, model: str) -> Provider:
        if name == "embedded":
            return self._embedded(model)
        if name in LOCAL_URLS:
            return self.compatible(name, LOCAL_URLS[name], model, None)
        service = SERVICES[name]
        key, url = self._settings.keys.get(name), self._settings.base_urls.get(name)
        if not self._has_key(name):
            also = f" (or {service.url_variable})" if name == "openai" else ""
            raise NotSetUp(f"it needs {service.variable}{also}, which is not set.")
        try:
            if name == "anthropic":
                return self._anthropic(url or service.url, model, key)
            if f"{name}:{model}" in self._settings.background:
                return self._background(url or service.url, model, key)
            store = name == "openai" and self._settings.store_answers
            return self.compatible(name, url or service.url, model, key, store=store)
        except SettingsError as error:
            where = f"{service.url_variable}: " if url and "base URL" in error.message else ""
            raise type(error)(f"{where}{error.message}") from None

    def askable(self) -> list[str]:
        """Return the providers whose models can be asked with what is set here."""
        services = (name for name in SERVICES if self._has_key(name))
        there = (name for name in services if name != "anthropic" or has_anthropic())
        return [*there, *LOCAL_URLS, "embedded"]

    def _has_key(self, name: str) -> bool:
        """Whether a service can be asked; another address of openai's may want no key."""
        at_home = name == "openai" and bool(self._settings.base_urls.get(name))
        return at_home or bool(self._settings.keys.get(name))

    def compatible(
        self, name: str, url: str, model: str, key: str | None, *, store: bool = False
    ) -> OpenAICompatible:
        """Return a provider of the OpenAI protocol, not kept.

        Raises:
            SettingsError: the address is none.
        """
        from ekiden.providers.openai_compatible import OpenAICompatible  # noqa: PLC0415

        return OpenAICompatible(
            base_url=url,
            model=model,
            api_key=key,
            name=name,
            store=store,
            manners=self._manners(name, model),
        )

    def _background(self, url: str, model: str, key: str | None) -> Provider:
        from ekiden.providers.openai_responses import OpenAIResponses  # noqa: PLC0415

        return OpenAIResponses(
            base_url=url, model=model, api_key=key, manners=self._manners("openai", model)
        )

    def _anthropic(self, url: str, model: str, key: str | None) -> Provider:
        from ekiden.providers.anthropic_messages import AnthropicMessages  # noqa: PLC0415

        return AnthropicMessages(
            base_url=url,
            model=model,
            api_key=key,
            name="anthropic",
            manners=self._manners("anthropic", model),
        )

    def _embedded(self, model: str) -> Provider:
        from ekiden.providers.embedded import EmbeddedModel  # noqa: PLC0415  -- keeps --help fast

        if model != EMBEDDED_MODEL:
            raise SettingsError(f"the one embedded model is embedded:{EMBEDDED_MODEL}.")
        return EmbeddedModel(self._settings.home, self._progress)

    def _manners(self, name: str, model: str) -> Manners:
        return Manners(
            f"{name}:{model}",
            at_once=self._settings.calls_at_once,
            breaker=self._breakers.setdefault(name, Breaker()),
        )

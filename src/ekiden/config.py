"""Settings, read once from the environment and ``.env``."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ekiden.core.alerts import Limits
from ekiden.core.model import Options
from ekiden.errors import SettingsError
from ekiden.redaction import hide


def _home() -> Path:
    return Path.home() / ".ekiden"


def _env_file() -> dict[str, str | None]:
    return dotenv_values(".env") if Path(".env").is_file() else {}


def _by_place(prefix: str) -> dict[str, str]:
    """Return the variables that begin so, without that: their names say a flow, phase and step."""
    given = {**_env_file(), **os.environ}
    return {
        name.removeprefix(prefix): value.strip()
        for name, value in sorted(given.items())
        if name.startswith(prefix) and value and value.strip()
    }


def _env(name: str) -> Any:
    return AliasChoices(name)


class Settings(BaseSettings):
    """Every setting, with the environment variable it is read from."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        case_sensitive=True,
        populate_by_name=True,
    )

    worker_enabled: bool = Field(True, validation_alias=_env("WORKER_ENABLED"))
    auto_progress_steps: bool = Field(True, validation_alias=_env("AUTO_PROGRESS_STEPS"))
    auto_progress_phases: bool = Field(False, validation_alias=_env("AUTO_PROGRESS_PHASES"))
    max_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3, validation_alias=_env("MAX_RETRIES")
    )
    retry_delay: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        1000, validation_alias=_env("RETRY_DELAY"), description="ms, base of the back-off"
    )
    worker_poll_interval: Annotated[int, Field(ge=10, le=3_600_000)] = Field(
        5000,
        validation_alias=_env("WORKER_POLL_INTERVAL"),
        description="ms, how often a worker looks while it cannot listen",
    )
    worker_batch_size: Annotated[int, Field(ge=1, le=10_000)] = Field(
        16, validation_alias=_env("WORKER_BATCH_SIZE"), description="tasks at once"
    )
    worker_timeout: Annotated[int, Field(ge=1, le=86_400_000)] = Field(
        300_000, validation_alias=_env("WORKER_TIMEOUT"), description="ms, one attempt"
    )

    lease: Annotated[float, Field(ge=1, le=3600)] = Field(
        60.0,
        validation_alias=_env("EKIDEN_LEASE"),
        description="s, how long a worker's claims hold without a sign of life",
    )

    alert_error_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25,
        validation_alias=_env("EKIDEN_ALERT_ERROR_RATE"),
        description="share of a flow's attempts that went wrong within 15 minutes; 0: no alert",
    )
    alert_queue_age: Annotated[int, Field(ge=0, le=604_800)] = Field(
        300,
        validation_alias=_env("EKIDEN_ALERT_QUEUE_AGE"),
        description="s that a task has been due; 0: no alert",
    )
    alert_stuck_session: Annotated[int, Field(ge=0, le=31_536_000)] = Field(
        1800,
        validation_alias=_env("EKIDEN_ALERT_STUCK_SESSION"),
        description="s in which no task of a RUNNING session ended; 0: no alert",
    )
    alert_budget: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9,
        validation_alias=_env("EKIDEN_ALERT_BUDGET"),
        description="share of a session's budget that is spent; 0: no alert",
    )
    alert_workers_lost: Annotated[int, Field(ge=0, le=10_000)] = Field(
        1,
        validation_alias=_env("EKIDEN_ALERT_WORKERS_LOST"),
        description="workers lost within 15 minutes; 0: no alert",
    )

    database_url: SecretStr = Field(
        SecretStr(""), validation_alias=_env("DATABASE_URL"), description="empty: embedded"
    )
    listen_url: SecretStr = Field(
        SecretStr(""),
        validation_alias=_env("EKIDEN_LISTEN_URL"),
        description="the database without the pooler that DATABASE_URL goes through",
    )
    home: Path = Field(default_factory=_home, validation_alias=_env("EKIDEN_HOME"))
    host: str = Field("127.0.0.1", validation_alias=_env("EKIDEN_HOST"))
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, validation_alias=_env("EKIDEN_PORT"))
    api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("EKIDEN_API_KEY"))

    model: str = Field("", validation_alias=_env("EKIDEN_MODEL"), description="provider:model")
    # The star stands for FLOW, FLOW_PHASE or FLOW_PHASE_STEP; no variable has it in its name.
    models: dict[str, str] = Field(
        default_factory=lambda: _by_place("EKIDEN_MODEL_"), validation_alias=_env("EKIDEN_MODEL_*")
    )
    fallback_model: str = Field("", validation_alias=_env("EKIDEN_FALLBACK_MODEL"))
    fallback_models: dict[str, str] = Field(
        default_factory=lambda: _by_place("EKIDEN_FALLBACK_MODEL_"),
        validation_alias=_env("EKIDEN_FALLBACK_MODEL_*"),
    )
    calls_at_once: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        validation_alias=_env("EKIDEN_CALLS_AT_ONCE"),
        description="calls that a worker has under way at one provider's model",
    )
    searches_at_once: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10,
        validation_alias=_env("EKIDEN_SEARCHES_AT_ONCE"),
        description="searches that a worker has under way at one engine",
    )
    openai_api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("OPENAI_API_KEY"))
    openai_base_url: str = Field("", validation_alias=_env("OPENAI_BASE_URL"))
    store_answers: bool = Field(False, validation_alias=_env("EKIDEN_STORE_ANSWERS"))
    background: str = Field(
        "", validation_alias=_env("EKIDEN_BACKGROUND"), description="models, with commas between"
    )
    perplexity_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=_env("PERPLEXITY_API_KEY")
    )
    perplexity_base_url: str = Field("", validation_alias=_env("PERPLEXITY_BASE_URL"))
    anthropic_api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("ANTHROPIC_API_KEY"))
    anthropic_base_url: str = Field("", validation_alias=_env("ANTHROPIC_BASE_URL"))
    gemini_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("GEMINI_API_KEY", "GOOGLE_API_KEY")
    )
    gemini_base_url: str = Field("", validation_alias=_env("GEMINI_BASE_URL"))
    search: str = Field(
        "", validation_alias=_env("EKIDEN_SEARCH"), description="engines, with commas between"
    )
    feed_interval: Annotated[int, Field(ge=0, le=604_800)] = Field(
        1800,
        validation_alias=_env("EKIDEN_FEED_INTERVAL"),
        description="s from one fetch of a feed to the next; 0: only by hand",
    )
    search_domains: str = Field("", validation_alias=_env("EKIDEN_SEARCH_DOMAINS"))
    search_recency: str = Field("", validation_alias=_env("EKIDEN_SEARCH_RECENCY"))
    tavily_api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("TAVILY_API_KEY"))
    tavily_base_url: str = Field("", validation_alias=_env("TAVILY_BASE_URL"))
    brave_api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("BRAVE_API_KEY"))
    brave_base_url: str = Field("", validation_alias=_env("BRAVE_BASE_URL"))
    searxng_url: str = Field("", validation_alias=_env("SEARXNG_URL"))

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("background")
    @classmethod
    def _of_openai(cls, models: str) -> str:
        for model in filter(None, map(str.strip, models.split(","))):
            name, _, rest = model.partition(":")
            if name != "openai" or not rest:
                raise ValueError(f"{model!r} is no model of openai, such as openai:gpt-5-pro")
        return models

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text and not text.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return url

    def secrets(self) -> list[str]:
        """Return what must not be written anywhere."""
        found = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                found.append(urlsplit(text).password if name.endswith("_url") else text)
        return [secret for secret in found if secret]

    def alert_limits(self) -> Limits:
        """Return from which reading on there is an alert."""
        return Limits(
            error_rate=self.alert_error_rate,
            queue_age=self.alert_queue_age,
            stuck_session=self.alert_stuck_session,
            budget=self.alert_budget,
            workers_lost=self.alert_workers_lost,
        )

    def options(self) -> Options:
        """Return the defaults for a new session."""
        return Options(
            auto_steps=self.auto_progress_steps,
            auto_phases=self.auto_progress_phases,
            max_retries=self.max_retries,
            retry_delay=timedelta(milliseconds=self.retry_delay),
            timeout=timedelta(milliseconds=self.worker_timeout),
        )


def variables_of(field: str) -> list[str]:
    """Return the environment variables a field is read from, the one it is known by first."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices), field
    return [str(name) for name in alias.choices]


def variable_of(field: str) -> str:
    """Return the environment variable a field is known by."""
    return variables_of(field)[0]


def origin_of(*variables: str) -> str:
    """Return where the value of a setting with these names comes from."""
    file = _env_file()
    if any(os.environ.get(name) for name in variables):
        return "environment"
    return ".env" if any(file.get(name) for name in variables) else "default"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings once.

    Raises:
        SettingsError: a variable does not parse; the message is one line naming it.
    """
    try:
        settings = Settings()
        hide(*settings.secrets())
        return settings
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        given = first.get("input")
        value = "" if "KEY" in name or "URL" in name else f"={given!s:.60}"
        raise SettingsError(f"{name}{value}: {first['msg']}") from None

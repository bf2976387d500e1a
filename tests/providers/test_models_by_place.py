from __future__ import annotations

from pathlib import Path

import pytest

from ekiden.config import Settings
from ekiden.errors import ModelElsewhere, ModelRefused, ModelUnavailable, SettingsError
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import Provider

PLACES = {
    "VIRAL": "ollama:flow",
    "VIRAL_1": "ollama:phase",
    "VIRAL_1_THINK": "ollama:step",
    "MY_FLOW_2_EXECUTE": "ollama:mine",
}


def models(**settings: object) -> Models:
    catalog = Catalog(ProviderSettings(home=Path("/nowhere")))
    return Models(catalog.get("ollama:default"), build=catalog.get, **settings)  # type: ignore[arg-type]


def label(provider: Provider | None) -> str | None:
    return None if provider is None else f"{provider.name}:{provider.model}"


@pytest.mark.parametrize(
    ("flow", "phase", "step", "expected"),
    [
        ("viral", 1, "THINK", "ollama:step"),
        ("viral", 1, "INTEGRATE", "ollama:phase"),
        ("viral", 2, "THINK", "ollama:flow"),
        ("viral", 11, "THINK", "ollama:flow"),
        ("my-flow", 2, "EXECUTE", "ollama:mine"),
        ("my-flow", 2, "THINK", "ollama:default"),
        ("another", 1, "THINK", "ollama:default"),
    ],
)
def test_the_most_specific_setting_wins(flow, phase, step, expected):
    chosen = models(places=PLACES).of(flow=flow, phase=phase, step=step)
    assert label(chosen) == expected


def test_what_was_chosen_for_the_session_wins_over_every_setting():
    chosen = models(places=PLACES).of(flow="viral", phase=1, step="THINK", wanted="ollama:wanted")
    assert label(chosen) == "ollama:wanted"


def test_a_provider_is_built_once_and_used_again():
    some = models(places=PLACES)
    one = some.of(flow="viral", phase=1, step="THINK")
    assert one is some.of(flow="other", phase=9, step="INTEGRATE", wanted="ollama:step")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("gpt-5", "provider:model"),
        ("nobody:x", "openai, perplexity"),
        ("embedded:another", "embedded:smollm2"),
    ],
)
def test_what_is_no_model_anywhere_is_refused(wanted, says):
    with pytest.raises(ModelRefused, match=says) as caught:
        models().of(flow="viral", phase=1, step="THINK", wanted=wanted)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("anthropic:claude", "ANTHROPIC_API_KEY"),
        ("gemini:x", "GEMINI_API_KEY"),
    ],
)
def test_a_model_that_was_chosen_and_is_not_set_up_here_is_for_another_worker(wanted, says):
    with pytest.raises(ModelElsewhere, match=says) as caught:
        models().of(flow="viral", phase=1, step="THINK", wanted=wanted)
    assert not caught.value.counts
    with pytest.raises(ModelRefused, match=says):  # a setting of this worker is its own mistake
        models(places={"VIRAL": wanted}).of(flow="viral", phase=1, step="THINK")


def test_a_worker_tells_which_providers_it_can_ask():
    catalog = Catalog(ProviderSettings(home=Path("/nowhere"), keys={"openai": "k", "gemini": "k"}))
    told = Models(None, askable=catalog.askable()).askable
    assert told == ["embedded", "gemini", "lmstudio", "ollama", "openai", "vllm"]


def test_a_wrong_place_is_found_when_the_worker_starts_and_named():
    with pytest.raises(SettingsError, match=r"EKIDEN_MODEL_VIRAL_1_THINK: .*OPENAI_API_KEY"):
        models(places={"VIRAL_1_THINK": "openai:gpt-5"}).check()
    with pytest.raises(SettingsError, match="EKIDEN_FALLBACK_MODEL_VIRAL: "):
        models(fallbacks={"VIRAL": "gpt-5"}).check()
    with pytest.raises(SettingsError, match="EKIDEN_FALLBACK_MODEL: "):
        models(fallback="nobody:x").check()


def test_fallbacks_are_looked_up_by_place_too_and_there_need_be_none():
    assert models().fallback(flow="viral", phase=1, step="THINK") is None
    some = models(fallback="ollama:any", fallbacks={"VIRAL_1": "ollama:one"})
    assert label(some.fallback(flow="viral", phase=1, step="THINK")) == "ollama:one"
    assert label(some.fallback(flow="viral", phase=2, step="THINK")) == "ollama:any"


def test_a_worker_without_a_model_says_what_to_set():
    with pytest.raises(ModelUnavailable, match="EKIDEN_MODEL"):
        Models(None).of(flow="viral", phase=1, step="THINK")


def test_the_settings_are_read_from_the_environment_and_the_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "EKIDEN_MODEL_VIRAL=openai:file\nEKIDEN_MODEL_VIRAL_1=openai:file\n"
    )
    monkeypatch.setenv("EKIDEN_MODEL_VIRAL_1", "openai:environment")
    monkeypatch.setenv("EKIDEN_MODEL_VIRAL_2", " ")
    monkeypatch.setenv("EKIDEN_FALLBACK_MODEL_VIRAL", "openai:fallback")
    settings = Settings()
    assert settings.models == {"VIRAL": "openai:file", "VIRAL_1": "openai:environment"}
    assert settings.fallback_models == {"VIRAL": "openai:fallback"}
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    assert Settings().gemini_api_key.get_secret_value() == "k"

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ekiden.errors import AnswerInvalid, ModelUnavailable, SettingsError
from ekiden.providers import catalog
from ekiden.providers.catalog import ProviderSettings
from ekiden.providers.choose import choose, describe
from ekiden.providers.protocol import Provider
from tests.providers.fake_server import FakeServer, Reply, answer, nothing

HOME = ProviderSettings(home=Path("/nowhere"))
CLOSED = "http://127.0.0.1:1/v1"


def given(**settings: str) -> ProviderSettings:
    """Settings, keys and addresses by the names that Settings has for them."""
    keys = {k.removesuffix("_api_key"): v for k, v in settings.items() if k.endswith("_api_key")}
    urls = {k.removesuffix("_base_url"): v for k, v in settings.items() if k.endswith("_base_url")}
    return replace(HOME, model=settings.get("model"), keys=keys, base_urls=urls)


def listing(*names: str) -> Reply:
    body = json.dumps({"object": "list", "data": [{"id": name} for name in names]})
    return answer(body.encode(), content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch):
    monkeypatch.setattr(
        catalog, "LOCAL_URLS", {"ollama": CLOSED, "lmstudio": CLOSED, "vllm": CLOSED}
    )


def label(provider: Provider) -> str:
    return f"{provider.name}:{provider.model}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "embedded:smollm2"),
        ({"model": "  "}, "embedded:smollm2"),
        ({"openai_api_key": "k"}, "openai:gpt-5-mini"),
        ({"openai_api_key": "k", "perplexity_api_key": "k"}, "openai:gpt-5-mini"),
        ({"perplexity_api_key": "k"}, "perplexity:sonar"),
        ({"anthropic_api_key": "k"}, "anthropic:claude-haiku-4-5"),
        ({"model": "embedded:smollm2", "openai_api_key": "k"}, "embedded:smollm2"),
        ({"model": "openai:gpt-5", "openai_api_key": "k"}, "openai:gpt-5"),
        ({"model": "openai:m", "openai_base_url": CLOSED}, "openai:m"),
        ({"model": "OLLAMA:llama3.2:1b"}, "ollama:llama3.2:1b"),
        ({"model": "lmstudio:qwen"}, "lmstudio:qwen"),
        ({"model": "anthropic:claude-x", "anthropic_api_key": "k"}, "anthropic:claude-x"),
        ({"model": "perplexity:sonar-pro", "perplexity_api_key": "k"}, "perplexity:sonar-pro"),
        ({"gemini_api_key": "k"}, "gemini:gemini-2.5-flash"),
        ({"model": "gemini:gemini-2.5-pro", "gemini_api_key": "k"}, "gemini:gemini-2.5-pro"),
        ({"model": "vllm:Qwen/Qwen3-8B"}, "vllm:Qwen/Qwen3-8B"),
    ],
)
async def test_the_setting_wins_then_a_key_then_the_embedded_model(settings, expected):
    assert label(await choose(given(**settings))) == expected


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"model": "gpt-5"}, "EKIDEN_MODEL"),
        ({"model": "openai:"}, "EKIDEN_MODEL"),
        (
            {"model": "nobody:x"},
            "openai, perplexity, anthropic, gemini, ollama, lmstudio, vllm, embedded",
        ),
        ({"model": "embedded:llama"}, "embedded:smollm2"),
        ({"model": "openai:gpt-5"}, "OPENAI_API_KEY"),
        ({"model": "perplexity:sonar", "openai_api_key": "k"}, "PERPLEXITY_API_KEY"),
        ({"model": "anthropic:claude-x"}, "ANTHROPIC_API_KEY"),
        ({"model": "gemini:x"}, "GEMINI_API_KEY"),
        ({"openai_base_url": "localhost:8000"}, "OPENAI_BASE_URL"),
        ({"openai_base_url": "https://u:s3cret@host/v1"}, "OPENAI_BASE_URL"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_the_variable(settings, names):
    with pytest.raises(SettingsError) as caught:
        await choose(given(**settings))
    assert names in caught.value.message
    assert "\n" not in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_a_base_url_without_a_key_gives_the_first_chat_model_listed_there(server):
    server.reply = listing("text-embedding-3", "qwen2.5", "llama3.2")
    chosen = await choose(given(openai_base_url=server.url))
    assert label(chosen) == "openai:qwen2.5"
    assert server.url in describe(chosen)
    assert server.requests[0].path == "/v1/models"


async def test_a_base_url_that_lists_nothing_asks_for_the_name(server):
    server.reply = listing()
    with pytest.raises(SettingsError, match="EKIDEN_MODEL=openai:NAME"):
        await choose(given(openai_base_url=server.url))


async def test_a_base_url_that_does_not_answer_is_unavailable_and_says_so():
    with pytest.raises(ModelUnavailable, match="OPENAI_BASE_URL"):
        await choose(given(openai_base_url=CLOSED))


async def test_a_base_url_of_something_else_is_said_to_be_no_model_server(server):
    server.reply = answer(b"<html>", content_type="text/html")
    with pytest.raises(AnswerInvalid, match="not a list of models"):
        await choose(given(openai_base_url=server.url))


async def test_a_local_server_with_a_chat_model_is_used(server, monkeypatch):
    server.reply = listing("nomic-embed-text", "llama3.2")
    monkeypatch.setattr(catalog, "LOCAL_URLS", {"ollama": CLOSED, "lmstudio": server.url})
    chosen = await choose(HOME)
    assert label(chosen) == "lmstudio:llama3.2"
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        listing(),
        listing("nomic-embed-text"),
        nothing,
        answer(b"<html>router</html>", content_type="text/html"),
        answer(b'{"data": {}}', content_type="application/json"),
        answer(b"no", status=404),
    ],
)
async def test_a_local_port_that_is_no_chat_server_is_passed_over(server, monkeypatch, reply):
    server.reply = reply
    monkeypatch.setattr(catalog, "LOCAL_URLS", {"ollama": server.url, "lmstudio": CLOSED})
    assert label(await choose(HOME)) == "embedded:smollm2"


def test_settings_do_not_show_keys():
    assert "s3cret" not in repr(given(openai_api_key="s3cret", anthropic_api_key="s3cret"))


async def test_the_embedded_model_is_described_honestly():
    said = describe(await choose(HOME))
    assert said.startswith("embedded:smollm2")
    assert "not the content" in said


def test_importing_the_protocol_and_the_choice_loads_no_slow_library():
    slow = {"openai", "httpx2", "genai_prices", "xllamacpp", "pydantic"}
    script = "import sys, ekiden.providers.choose, ekiden.providers.protocol; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not slow & set(done.stdout.split())

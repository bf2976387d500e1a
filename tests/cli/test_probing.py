"""``ekiden doctor --providers``: without a key, with a bad one, against servers that work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ekiden.cli.finding import Finding
from ekiden.cli.probing import ask_each
from ekiden.config import Settings, load_settings
from ekiden.providers import catalog
from tests.providers.fake_server import FakeServer, answer
from tests.providers.wires import ANTHROPIC, OPENAI, PERPLEXITY, WIRES, Wire

CLOSED = "http://127.0.0.1:1/v1"
KEY = "key-0123456789"


@pytest.fixture
async def remote() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch):
    closed = dict.fromkeys(("ollama", "lmstudio", "vllm"), CLOSED)
    monkeypatch.setattr(catalog, "LOCAL_URLS", closed)


def settings(home: Path, wire: Wire | None = None, remote: FakeServer | None = None, **more: Any):
    if wire is not None and remote is not None:
        url = remote.origin if wire.name == "anthropic" else remote.url
        more |= {f"{wire.name}_api_key": KEY, f"{wire.name}_base_url": url}
        more.setdefault("model", f"{wire.name}:{wire.model}")
    return Settings(home=home, **more)


def the(findings: list[Finding], what: str) -> Finding:
    return next(finding for finding in findings if finding.what == what)


async def test_without_a_key_it_says_what_could_be_set(tmp_path):
    findings = await ask_each(settings(tmp_path))
    assert [f.state for f in findings] == ["note", "note"]
    assert "ANTHROPIC_API_KEY" in the(findings, "providers").message
    assert "ekiden models pull" in the(findings, "embedded:smollm2").message


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_server_that_works_says_how_fast_and_for_how_much(tmp_path, remote, wire):
    remote.reply = wire.says("ready")
    given = settings(tmp_path, wire, remote, search="documents")
    found = the(await ask_each(given), f"{wire.name}:{wire.model}")
    assert found.state == "ok"
    assert "answers in 0." in found.message
    assert "120 tokens in, 30 out" in found.message
    price = "$0.005000 (stated by the provider)" if wire is PERPLEXITY else "no price is known"
    assert price in found.message


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_bad_key_is_broken_and_is_not_shown(tmp_path, remote, wire):
    remote.reply = answer(
        f'{{"error": {{"message": "Incorrect API key: {KEY}"}}}}'.encode(),
        status=401,
        content_type="application/json",
    )
    found = the(await ask_each(settings(tmp_path, wire, remote)), f"{wire.name}:{wire.model}")
    assert found.state == "broken"
    assert "check the key" in found.message
    assert KEY not in found.message


async def test_every_model_that_is_named_is_asked_once_and_no_other(tmp_path, remote):
    remote.answering = lambda received: (
        ANTHROPIC.says("ready") if "anthropic" in str(received.headers) else OPENAI.says("ready")
    )
    given = settings(
        tmp_path,
        OPENAI,
        remote,
        models={"VIRAL": "openai:gpt-5", "VIRAL_1": "openai:gpt-5"},
        fallback_model="gemini:x",
    )
    findings = await ask_each(given)
    assert the(findings, "openai:gpt-5-mini").state == "ok"
    assert the(findings, "openai:gpt-5").state == "ok"
    assert "GEMINI_API_KEY" in the(findings, "gemini:x").message
    assert len(remote.requests) == 2


async def test_an_address_without_a_name_asks_for_the_first_model_it_lists(tmp_path, remote):
    listed = answer(b'{"data": [{"id": "qwen"}]}', content_type="application/json")
    remote.answering = lambda received: (
        listed if received.path == "/v1/models" else OPENAI.says("ready")
    )
    findings = await ask_each(Settings(home=tmp_path, openai_base_url=remote.url))
    assert the(findings, "openai:qwen").state == "ok"


async def test_search_engines_are_asked_too(tmp_path, remote):
    body = b'{"results": [{"title": "t", "url": "https://a.org", "content": "c"}]}'
    remote.reply = answer(body, content_type="application/json")
    given = Settings(
        home=tmp_path,
        searxng_url=remote.origin,
        tavily_api_key=KEY,
        tavily_base_url="http://127.0.0.1:1",
    )
    findings = await ask_each(given)
    assert the(findings, "search searxng").state == "ok"
    assert "1 of 1 found; costs nothing" in the(findings, "search searxng").message
    assert "cannot be reached" in the(findings, "search tavily").message


def test_a_place_that_there_is_not_is_named(tmp_path):
    from ekiden.cli.diagnosis import _places

    given = Settings(
        home=tmp_path,
        models={"VIRAL_1_THINK": "openai:m", "VIRAL_1_THNK": "openai:m", "VIRAL_2": "openai:m"},
        fallback_models={"VIRUL": "openai:m"},
    )
    assert [finding.what for finding in _places(given)] == [
        "EKIDEN_MODEL_VIRAL_1_THNK",
        "EKIDEN_FALLBACK_MODEL_VIRUL",
    ]


def test_the_command_fails_when_a_provider_is_broken(tmp_path, monkeypatch, database):
    from ekiden.cli.main import app

    monkeypatch.setenv("EKIDEN_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("OPENAI_BASE_URL", CLOSED)
    monkeypatch.setenv("EKIDEN_MODEL", "openai:m")
    load_settings.cache_clear()
    try:
        done = CliRunner().invoke(app, ["doctor", "--providers"])
    finally:
        load_settings.cache_clear()
    assert done.exit_code == 1, done.output
    assert "✖ openai:m: http://127.0.0.1:1/v1 cannot be reached" in done.output

"""Secrets go, words stay."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from ekiden import redaction
from ekiden.config import Settings, variable_of
from ekiden.redaction import MARK, redact, redact_bytes

SECRETS = [
    "sk-proj-abcdEFGH1234567890abcd",
    "pplx-0123456789abcdef0123",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xx.abc123def456",
    "hunter2hunter2",
]


@pytest.mark.parametrize(
    "text",
    [
        "the key sk-proj-abcdEFGH1234567890abcd was refused",
        "Authorization: Bearer sk-proj-abcdEFGH1234567890abcd",
        '{"api_key": "hunter2hunter2", "model": "x"}',
        "OPENAI_API_KEY=hunter2hunter2",
        "postgresql://ekiden:hunter2hunter2@db:5432/ekiden",
        "password = hunter2hunter2",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xx.abc123def456 expired",
        "pplx-0123456789abcdef0123",
        "https://example.org/feed.xml?user=7&token=hunter2hunter2#top answers with status 500.",
        "https://example.org/feed?X-Amz-Signature=hunter2hunter2",
    ],
)
def test_what_looks_like_a_secret_goes(text: str):
    said = redact(text)
    assert MARK in said
    assert not any(secret in said for secret in SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "The answer of gpt-5 does not fit: hashtags.0: too long.",
        "PostgreSQL at db:5432, database ekiden cannot be reached",
        "the secret of good tea is water",
        "https://example.org/a?b=c&page=2#d",
        "session 019a8b2e-7d00-7000-8000-000000000000 phase 1 THINK",
    ],
)
def test_words_stay(text: str):
    assert redact(text) == text


def test_what_the_settings_say_is_secret_goes_wherever_it_stands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redaction, "_hidden", set())
    redaction.hide("opensesame", "tea")
    assert redact("say opensesame and tea") == f"say {MARK} and tea"
    assert redact_bytes(b'{"messages": "opensesame"}') == f'{{"messages": "{MARK}"}}'.encode()


def test_every_key_that_can_be_set_is_secret(monkeypatch: pytest.MonkeyPatch):
    fields = Settings.model_fields
    keys = [name for name, field in fields.items() if field.annotation is SecretStr]
    assert len(keys) >= 9
    for name in keys:
        value = f"postgresql://u:{name}-s3cret@h/d" if name.endswith("_url") else f"{name}-s3cret"
        monkeypatch.setenv(variable_of(name), value)
    assert sorted(Settings().secrets()) == sorted(f"{name}-s3cret" for name in keys)

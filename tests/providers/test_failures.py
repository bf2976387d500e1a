from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from ekiden.errors import ModelBusy, ModelRefused, ModelUnavailable
from ekiden.providers.failures import failure, failure_in_stream, redact, retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
USED_UP = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:40 GMT"}, 40.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999999"}, 86400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        (USED_UP, 90.0),
        (USED_UP | {"x-ratelimit-remaining-requests": "3"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "later"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_in_every_form_servers_write_it(headers, seconds):
    assert retry_after(headers, now=NOW) == seconds


def test_googles_retry_delay_is_found_in_the_body():
    error = {"code": 429, "message": "quota", "details": [{"retryDelay": "34s"}]}
    body = json.dumps([{"error": error}]).encode()
    caught = failure(429, {}, body, url="https://g.test")
    assert isinstance(caught, ModelBusy)
    assert caught.retry_after == 34
    assert "come back in 34 s" in caught.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error": {"message": "bad model"}}', "bad model"),
        (b'{"error": "bad model"}', "bad model"),
        (b'{"detail": "bad model"}', "bad model"),
        (b'{"message": "bad model"}', "bad model"),
        (b"bad   model\n", "bad model"),
        (b"", "no explanation"),
    ],
)
def test_the_servers_own_words_are_found_in_any_shape(body, says):
    caught = failure(400, {}, body, url="http://h.test")
    assert isinstance(caught, ModelRefused)
    assert says in caught.message


def test_long_explanations_are_cut():
    body = json.dumps({"error": {"message": "x" * 10_000}}).encode()
    assert len(failure(400, {}, body, url="http://h.test").message) < 700


def test_an_error_in_a_stream_without_a_code_can_be_retried():
    caught = failure_in_stream({"message": "kaput"}, url="http://h.test")
    assert isinstance(caught, ModelUnavailable)
    assert caught.retryable


@pytest.mark.parametrize(
    "text",
    ["key sk-abcdef123456 is bad", "pplx-0123456789abcdef", "Authorization: Bearer abc.def-123"],
)
def test_what_looks_like_a_key_is_never_shown(text):
    shown = redact(text)
    assert "[key]" in shown
    assert not any(part in shown for part in ("abcdef", "abc.def"))


def test_a_given_secret_is_redacted_whatever_it_looks_like():
    assert redact("denied for hunter2", "hunter2", None, "") == "denied for [key]"

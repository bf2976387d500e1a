"""What went wrong on the way to a model, as one of our errors with a sentence for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ekiden.errors import ModelBusy, ModelError, ModelRefused, ModelUnavailable
from ekiden.providers.limits import duration, number, seconds_until
from ekiden.providers.protocol import storable
from ekiden.providers.reading import error_text

_LONGEST_WAIT = 24 * 3600.0  # whatever a server asks for, a day is enough

# 429 means "later" except when it means "never again with this account".
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})

# The types of Anthropic's errors, by the status they have when they come in time for one:
# https://platform.claude.com/docs/en/api/errors
_TYPES = {
    "authentication_error": 401,
    "permission_error": 403,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}

_KEYS = re.compile(r"\b(sk|pplx|gsk|xai|key)-[A-Za-z0-9_*.-]{6,}|\bBearer\s+[^\s\"',]+")


def redact(text: str, *secrets: str | None) -> str:
    """Return the text without the given secrets and without anything that looks like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    return _KEYS.sub("[key]", text)


def failure(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    url: str,
    key: str | None = None,
    now: datetime | None = None,
) -> ModelError:
    """Return the error that an answer other than 2xx stands for."""
    error = _error_object(body)
    said = redact(_said(error, body), key)
    code = _word(error.get("code") or error.get("type"))
    if status == 429 and code in _NO_QUOTA:
        return ModelRefused(f"{url} refuses: no quota left ({said})")
    if status in {429, 503, 529}:  # 529 is Anthropic's "overloaded"
        wait = retry_after(headers, error, now=now)
        later = f"; come back in {wait:g} s" if wait is not None else ""
        return ModelBusy(f"{url} is busy ({status}){later}: {said}", retry_after=wait)
    if status >= 500 or status in {408, 425}:
        return ModelUnavailable(
            f"{url} failed with {status}: {said}", retry_after=retry_after(headers, error, now=now)
        )
    if 300 <= status < 400:
        target = redact(headers.get("location", "elsewhere"), key)
        return ModelRefused(
            f"{url} redirects ({status}) to {target}; requests are not redirected: "
            "put the final address into the base URL"
        )
    hint = "; check the key" if status in {401, 403} else ""
    return ModelRefused(f"{url} refuses the request ({status}{hint}): {said}")


def failure_in_stream(error: dict[str, Any], *, url: str, key: str | None = None) -> ModelError:
    """Return the error for an ``error`` object that came in the middle of a 200."""
    code = _word(error.get("code") or error.get("status"))
    status = _TYPES.get(_word(error.get("type")), 500)
    if re.fullmatch("[45][0-9][0-9]", code):
        status = int(code)
    try:
        body = json.dumps({"error": error}).encode()
    except (ValueError, RecursionError):
        body = b'{"error": {"message": "an error that cannot be shown"}}'
    return failure(status, {}, body, url=url, key=key)


def _word(code: Any) -> str:
    """Return a code as text; what is neither a word nor a number is none."""
    return str(code) if isinstance(code, str | int) else ""


def retry_after(
    headers: Mapping[str, str],
    error: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> float | None:
    """Return the seconds the server asked us to wait; None if it did not say.

    Asked in this order: ``retry-after-ms``, ``Retry-After`` (seconds or HTTP date), the rate
    limit that is used up (``x-ratelimit-reset-*``), Google's ``retryDelay`` in the body.
    """
    if (milliseconds := number(headers.get("retry-after-ms"))) is not None:
        return _bounded(milliseconds / 1000)
    if (value := headers.get("retry-after")) is not None:
        if (seconds := number(value)) is not None:
            return _bounded(seconds)
        if (date := _http_date(value)) is not None:
            return _bounded((date - (now or datetime.now(UTC))).total_seconds())
    resets = [
        wait
        for what in ("requests", "tokens")
        if number(headers.get(f"x-ratelimit-remaining-{what}")) == 0
        and (wait := seconds_until(headers.get(f"x-ratelimit-reset-{what}"))) is not None
    ]
    if resets:
        return _bounded(max(resets))
    details = (error or {}).get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and "retryDelay" in detail:
            wait = duration(str(detail["retryDelay"]))
            return None if wait is None else _bounded(wait)
    return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _error_object(body: bytes) -> dict[str, Any]:
    """Return the ``error`` object of a body, in any of the shapes servers use for it."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list) and document:  # Google wraps it in a list
        document = document[0]
    if not isinstance(document, dict):
        return {}
    error = document.get("error", document)
    return error if isinstance(error, dict) else {"message": str(error)}


def _said(error: dict[str, Any], body: bytes) -> str:
    if error:
        return error_text(error)
    text = storable(" ".join(body.decode("utf-8", "replace").split()))
    return repr(text[:200]) if text else "no explanation"

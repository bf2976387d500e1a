"""Sends a webhook, signed as Standard Webhooks has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the
headers ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``; what is signed is
``id.timestamp.body`` with HMAC-SHA256 under the secret, which is ``whsec_`` and base64.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson

from ekiden.core.alerts import Alert
from ekiden.core.sentences import of_alert, told_of
from ekiden.errors import StepError
from ekiden.store.errands import Errand

if TYPE_CHECKING:
    import httpx2

TIMEOUT = 15.0  # seconds for all of it; the specification suggests 15 to 30
_SHOWN = 300  # characters of a refusal that the delivery log keeps
_READ = 4 * _SHOWN  # bytes of it that are read: a character has four at most
_READING = 2.0  # seconds


class DeliveryFailed(StepError):
    """The webhook was not taken.

    Attributes:
        http_status: the answer, when there was one.
    """

    def __init__(
        self, message: str, *, http_status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.http_status = http_status
        # 410: the receiver says that it is gone for good.
        self.retryable = http_status != 410


def new_secret() -> str:
    """Return a secret of 256 bits, as the specification writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def body_of(errand: Errand, progress: dict[str, Any]) -> bytes:
    """Return what is sent: the event, and where the session is. No output: that is asked for."""
    told = ("sessionId", "flow", "title", "status", "currentPhase", "currentStep", "waitingFor",
            "revision", "complaint", "error", "stop", "usage", "cost")  # fmt: skip
    return orjson.dumps(
        {
            "type": errand.event,
            "timestamp": errand.created_at,
            "data": {name: progress[name] for name in told},
        }
    )


def body_of_alert(errand: Errand, alert: Alert) -> bytes:
    """Return what is sent of an alert: what it is about, its figures, and the same in words.

    That it began is told in the words of its beginning, however late that can be sent.
    """
    told = told_of(alert)
    if errand.event == "alert.raised":
        told["message"] = of_alert(replace(alert, resolved_at=None))
    return orjson.dumps({"type": errand.event, "timestamp": errand.created_at, "data": told})


async def deliver(errand: Errand, body: bytes) -> int:
    """Send it and return the HTTP status.

    Raises:
        DeliveryFailed: nobody took it; says whether and when another try makes sense.
    """
    import httpx2  # noqa: PLC0415 - a worker that has nobody to tell starts without it

    assert errand.url is not None
    assert errand.secret is not None
    message_id, timestamp = f"ekiden_{errand.id}", int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": f"ekiden/{version('ekiden')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(errand.secret, message_id, timestamp, body),
    }
    try:
        # The client's own timeout is for each read: one that drips would hold up all the others.
        async with (
            asyncio.timeout(TIMEOUT),
            httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream("POST", errand.url, content=body, headers=headers) as answer,
        ):
            if answer.is_success:
                return answer.status_code
            said = await _beginning(answer)
    except TimeoutError as error:
        raise DeliveryFailed(f"No answer within {TIMEOUT:g} s.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DeliveryFailed(f"{type(error).__name__}: {error}") from error
    after = answer.headers.get("retry-after", "")
    raise DeliveryFailed(
        f"HTTP {answer.status_code}: {said}",
        http_status=answer.status_code,
        retry_after=float(after) if after.isdecimal() and len(after) < 9 else None,
    )


async def _beginning(answer: httpx2.Response) -> str:
    """Return the beginning of what somebody says who did not take it, however much they say."""
    read = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_READING):
            async for piece in answer.aiter_bytes():
                read += piece
                if len(read) >= _READ:
                    break
    return read[:_READ].decode("utf-8", "replace")[:_SHOWN]


def took_since(begun: float) -> timedelta:
    """Return the time since ``time.monotonic()`` was ``begun``."""
    return timedelta(seconds=time.monotonic() - begun)

"""The door: nothing reaches a route that was not let in here. Denies by default.

A request passes, in this order: the Host header (no DNS rebinding), the key, the question whether
another site's page sent it, its content type, and its size. This is one piece of ASGI around the
whole app, so a route that somebody adds tomorrow is behind it without saying so.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Protocol

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ekiden.api.limits import BodyTooLarge, Disconnected, read_body
from ekiden.api.problems import Refusal
from ekiden.api.settings import ApiSettings, is_loopback

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # say nothing but that they are up
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DELIVERY = re.compile(r"/api/[^/]+/cot-session/[^/]+/continue-async")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
_FORM = re.compile(r"application/x-www-form-urlencoded", re.IGNORECASE)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PagesLike(Protocol):
    """What the guard asks about the paths that people see in a browser (``ekiden.web.door``).

    They take forms where the API takes JSON, and a login where it takes the key; nothing else of
    the door differs.
    """

    def covers(self, path: str) -> bool:
        """Whether the path is a page's."""

    def admits(self, scope: Scope) -> bool:
        """Whether a login, or no need of one, opens this page."""

    def refused(self, refusal: Refusal, scope: Scope) -> Response:
        """Say it as a page."""


class Guard:
    """ASGI middleware that lets in what may come in, and sends nothing out unlabelled."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, pages: PagesLike | None = None) -> None:
        self._app = app
        self._settings = settings
        self._pages = pages
        self._key = _digest(settings.api_key.encode()) if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # a WebSocket: there is none here
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def labelled(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)  # a page may bring a policy of its own
            await send(message)

        pages = self._pages_of(scope["path"])
        try:
            inner = await self._admit(scope, receive, pages)
        except Refusal as refusal:
            await _answer(refusal, scope, pages)(scope, receive, labelled)
            return
        except Disconnected:
            return
        try:
            await self._app(scope, inner, labelled)
        except Exception:
            # What nobody foresaw: the caller gets a problem document, we get the traceback.
            log.exception("request_crashed", path=scope["path"], method=scope["method"])
            if started:
                raise
            crash = Refusal(500, "internal", "Something went wrong here; the log says what.")
            await _answer(crash, scope, pages)(scope, receive, labelled)

    def _pages_of(self, path: str) -> PagesLike | None:
        if self._pages is None or path in OPEN_PATHS or path.startswith("/api/"):
            return None
        return self._pages if self._pages.covers(path) else None

    async def _admit(self, scope: Scope, receive: Receive, pages: PagesLike | None) -> Receive:
        """Return what the app reads the request from, or refuse it."""
        headers = Headers(scope=scope)
        self._check_host(headers)
        if scope["path"] not in OPEN_PATHS and not (pages and pages.admits(scope)):
            self._check_key(headers)
        if scope["method"] in _SAFE_METHODS:
            return receive
        _check_site(headers)
        body = await self._body(scope, headers, receive)
        kind = headers.get("content-type", "").split(";")[0].strip()
        if pages and not _FORM.fullmatch(kind):
            raise Refusal(
                415, "not-a-form", "Send a form: Content-Type: application/x-www-form-urlencoded."
            )
        if body and not pages and not _JSON.fullmatch(kind):
            raise Refusal(415, "not-json", "Send the body as Content-Type: application/json.")
        return _replay(body, receive)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not ours: a page of a rebound name runs as if it were here.

        With a key this is not needed, for such a page does not have it; and a proxy in front of
        a loopback address sends the name that people typed.
        """
        if self._key is not None:
            return
        name = _name_of(headers.get("host", ""))
        if not name or not (is_loopback(name) or name == self._settings.host.lower().strip("[]")):
            raise Refusal(421, "wrong-host", "This host name is not served here.")

    def _check_key(self, headers: Headers) -> None:
        if self._key is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(
                401,
                "no-key",
                "Send the key: Authorization: Bearer <EKIDEN_API_KEY>.",
                headers={"WWW-Authenticate": 'Bearer realm="ekiden"'},
            )
        # Headers arrive as latin-1; digests, so that not even the length of the key shows.
        if not hmac.compare_digest(_digest(token.strip(" ").encode("latin-1")), self._key):
            raise Refusal(
                401,
                "wrong-key",
                "This key is not valid.",
                headers={"WWW-Authenticate": 'Bearer realm="ekiden", error="invalid_token"'},
            )

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        limit = self._settings.max_body
        if _DELIVERY.fullmatch(scope["path"]):
            limit = max(limit, self._settings.max_result)
        too_large = Refusal(
            413,
            "too-large",
            f"The body is larger than {limit} bytes.",
            # What was not read must not be taken for the next request.
            headers={"Connection": "close"},
        )
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            raise too_large
        try:
            return await read_body(receive, limit)
        except BodyTooLarge:
            raise too_large from None


def _check_site(headers: Headers) -> None:
    """Refuse what another site's page sends: without a login, it would act as its visitor.

    ``same-site`` is refused as well: every port of localhost is the same site.
    """
    fetched_by = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if fetched_by is not None:
        ours = fetched_by in {"same-origin", "none"}
    elif origin is not None:
        ours = origin.lower().partition("://")[2] == headers.get("host", "").lower()
    else:
        ours = True  # not a browser
    if not ours:
        raise Refusal(403, "cross-site", "Pages of other sites may not do this.")


def _answer(refusal: Refusal, scope: Scope, pages: PagesLike | None) -> Response:
    return pages.refused(refusal, scope) if pages else refusal.response(scope["path"])


def _name_of(host: str) -> str:
    """Return a Host header without its port."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", host)
    return match[1].lower().strip("[]") if match else ""


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body that was read, then what the client does next."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed

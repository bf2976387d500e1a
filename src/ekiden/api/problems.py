"""Every refusal in one form: RFC 9457 problem details, ``application/problem+json``."""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ekiden import errors
from ekiden.schemas import Field
from ekiden.store.connection import TRANSIENT

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Refusal(Exception):
    """A request that is refused, with all that its problem document says."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        fields: Sequence[Field] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.fields = fields
        self.headers = headers or {}

    def response(self, instance: str) -> Response:
        """Return the problem document; ``instance`` is the path that was asked for."""
        document: dict[str, Any] = {
            "type": f"urn:ekiden:problem:{self.kind}",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": _plain(self.detail),
            "instance": _plain(instance),
        }
        if self.fields:
            document["errors"] = [
                {"field": _plain(name), "message": _plain(message)} for name, message in self.fields
            ]
        return Response(
            orjson.dumps(document), self.status, headers=self.headers, media_type=MEDIA_TYPE
        )


def _plain(text: str) -> str:
    # Field names and paths are the caller's: a lone surrogate in one must not break the answer.
    return text.encode("utf-8", "backslashreplace").decode()


def invalid(fields: Sequence[Field], detail: str | None = None) -> Refusal:
    """Return the refusal of a request whose fields do not fit."""
    named = ", ".join(dict.fromkeys(name for name, _ in fields if name))
    return Refusal(
        422, "invalid", detail or f"These do not fit: {named or 'the body'}.", fields=fields
    )


# Errors whose message is for the caller; a subclass stands before its base.
_OURS: tuple[tuple[type[errors.EkidenError], int, str], ...] = (
    (errors.NotFound, 404, "not-found"),
    (errors.UnknownFlow, 404, "not-found"),
    (errors.InputInvalid, 422, "invalid"),
    (errors.StaleRevision, 412, "stale-revision"),
    (errors.NoGate, 409, "no-gate"),
    (errors.Conflict, 409, "conflict"),
)
_AGAIN = {"Retry-After": "2"}
# It is there and says no, for now: a timeout, a deadlock, no room, no writes.
_BUSY = (
    *TRANSIENT,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)


def refusal_of(error: errors.EkidenError, address: str) -> Refusal:
    """Translate an error of ours. What the database said stays in the log.

    Args:
        error: what was raised.
        address: where the database is, without credentials.
    """
    for kind_of_error, status, kind in _OURS:
        if isinstance(error, kind_of_error):
            return Refusal(status, kind, error.message, fields=getattr(error, "problems", ()))
    match error:
        case errors.DatabaseUnreachable() if isinstance(error.__cause__, _BUSY):
            log.warning("database_busy", error=error.message)
            detail = f"PostgreSQL at {address} cannot do this now; the log says why. Try again."
            return Refusal(503, "database-busy", detail, headers=_AGAIN)
        case errors.DatabaseUnreachable():
            log.warning("database_unreachable", error=error.message)
            detail = f"PostgreSQL at {address} cannot be reached. Try again when it is back."
            return Refusal(503, "database-unreachable", detail, headers=_AGAIN)
        case errors.DatabaseError() if isinstance(error.__cause__, asyncpg.DataError):
            # The checks before should have named the field; this is the net under them.
            log.warning("value_refused", error=error.message)
            return Refusal(422, "invalid", "A value in this request cannot be stored.")
        case _:
            log.error("request_failed", error=error.message, exc_info=error)
            return Refusal(500, "internal", "Something went wrong here; the log says what.")


_KINDS = {404: "not-found", 405: "method-not-allowed"}


def install(app: FastAPI, address: str) -> None:
    """Make every error of the app a problem document."""

    @app.exception_handler(Refusal)
    async def _refused(request: Request, error: Refusal) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(errors.EkidenError)
    async def _ours(request: Request, error: errors.EkidenError) -> Response:
        return refusal_of(error, address).response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _parameters(request: Request, error: RequestValidationError) -> Response:
        fields = [
            (".".join(str(part) for part in item["loc"][1:]), item["msg"])
            for item in error.errors()
        ]
        return invalid(fields).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        kind = _KINDS.get(error.status_code, "http")
        detail = {404: "There is nothing here.", 405: "This method does nothing here."}.get(
            error.status_code, str(error.detail)
        )
        return Refusal(error.status_code, kind, detail, headers=dict(error.headers or {})).response(
            request.url.path
        )

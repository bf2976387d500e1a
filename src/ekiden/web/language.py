"""Which language a request is answered in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Scope

from ekiden.web.texts import Speech, choose

LANGUAGE = "ekiden_lang"  # the cookie


def speech_of(scope: Scope) -> Speech:
    """Return the language to answer a request in."""
    request = Request(scope)
    return choose(
        request.query_params.get("lang"),
        request.cookies.get(LANGUAGE),
        request.headers.get("accept-language", ""),
    )

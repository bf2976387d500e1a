"""Which language a request is answered in, and the way to the same page in another."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

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


def itself(path: str, query: Iterable[tuple[str, str]]) -> str:
    """Return a page's address up to the language: what the links to the others begin with.

    Args:
        path: of the page, as it is asked for with GET; empty for that of the request.
        query: what else the page is asked for with; what is empty is left out.
    """
    kept = urlencode([(k, v) for k, v in query if v and k != "lang"])
    return f"{path}?{kept}&" if kept else f"{path}?"

"""Templates become pages here. They only substitute, and every value is escaped."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import Scope

from ekiden.api.problems import Refusal
from ekiden.web import spans
from ekiden.web.assets import assets
from ekiden.web.language import itself, speech_of
from ekiden.web.texts import LANGUAGES, Speech
from ekiden.web.visible import folded, plain, visible
from ekiden.web.words import told_in

# htmx may fetch from here alone, evaluates nothing, and puts no style of its own into the page.
_HTMX = json.dumps(
    {
        "selfRequestsOnly": True,
        "allowEval": False,
        "allowScriptTags": False,
        "includeIndicatorStyles": False,
        "historyEnabled": False,
        "scrollBehavior": "auto",
        "timeout": 15000,
        "attributesToSettle": ["class", "x", "x1", "x2"],
        # A decision that came too late is answered 4xx with the page that says so.
        "responseHandling": [
            {"code": "204", "swap": False},
            {"code": "...", "swap": True},
        ],
    }
)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    # Addresses go nowhere else. Without any, a browser would also not say which page sends a form,
    # and over plain HTTP the guard has nothing but that to tell it by.
    "Referrer-Policy": "same-origin",
    # Nothing is kept by anything in between; the browser may show it again on the way back, with
    # what a person had typed.
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Language, Cookie, HX-Request",
}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ekiden.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        json=_json, v=visible, plain=plain, folded=folded, iso=spans.iso, exact=spans.exact
    )
    environment.globals.update(
        assets=assets(), languages=LANGUAGES, htmx_config=_HTMX, software=version("ekiden")
    )
    return environment


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def render(template: str, speech: Speech, **values: Any) -> Markup:
    """Return a template filled in.

    Args:
        template: a file in ``templates/``.
        speech: the language of the texts.
        values: what it shows; ``now`` is what times are relative to.
    """
    values.setdefault("now", datetime.now(UTC))
    now: datetime = values["now"]

    def ago(moment: datetime) -> str:
        return spans.ago(moment, now, speech)

    def lasting(seconds: float | None) -> str:
        return spans.lasting(seconds, speech)

    said = _environment().get_template(template)
    return Markup(said.render(t=speech, lang=speech.code, ago=ago, lasting=lasting, **values))  # noqa: S704 - the environment escapes


def page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    """Return a page with the headers that protect it."""
    return HTMLResponse(html, status, headers={**HEADERS, **(headers or {})})


def error_page(refusal: Refusal, scope: Scope, *, logged_in: bool = True) -> HTMLResponse:
    """Return a refusal as a page: what happened, in plain words, and what to do."""
    speech, request = speech_of(scope), Request(scope)
    looked = request.method in {"GET", "HEAD"}
    html = render(
        "error.html",
        speech,
        status=refusal.status,
        title=speech.maybe(f"refusal.{refusal.kind}", HTTPStatus(refusal.status).phrase),
        advice=speech.maybe(f"refusal-advice.{refusal.kind}", ""),
        detail=refusal.detail,
        fields=[(name, told_in(speech, message)) for name, message in refusal.fields],
        path="",
        # What a form asked for is not to be asked for again: its page leads home.
        itself=itself("", request.query_params.multi_items()) if looked else "/?",
        logged_in=logged_in,
    )
    return page(html, refusal.status, refusal.headers)

"""One request of a person: their language, what they sent, and how they are answered."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from ekiden.api.limits import unstorable_text
from ekiden.api.problems import Refusal, invalid, refusal_of
from ekiden.api.services import Here, Services
from ekiden.api.sse import Login
from ekiden.errors import EkidenError
from ekiden.web.door import LOGIN
from ekiden.web.language import LANGUAGE, itself, speech_of
from ekiden.web.rendering import error_page, page, render
from ekiden.web.seal import Seal, new_visitor
from ekiden.web.texts import LANGUAGES

VISITOR = "ekiden_visitor"  # cookies
NAME = "ekiden_name"
_YEAR = 365 * 24 * 3600
_MOST_FIELDS = 500
_LONGEST_NAME = 80


class Visit:
    """A request to a page, and the answer to it."""

    def __init__(self, request: Request, here: Services) -> None:
        self.request = request
        self.here = here
        self.pages = here.sessions.pages
        self.t = speech_of(request.scope)
        self.seal = Seal(here.settings.api_key)
        known = request.cookies.get(VISITOR, "")
        self._visitor = known if known.isalnum() and len(known) == 32 else new_visitor()
        self._cookies: dict[str, tuple[str, int, bool]] = {}
        if self._visitor != known:
            # For as long as a browser brings tabs back: their forms were made for this visitor.
            self.keep(VISITOR, self._visitor, seconds=_YEAR)
        if (asked := request.query_params.get("lang")) in LANGUAGES:
            self.keep(LANGUAGE, str(asked), seconds=_YEAR)
        self.name = _kept_name(request.cookies.get(NAME, ""))

    @property
    def login(self) -> Login | None:
        """The login that lets them in; None where there is none, or the key does."""
        return self.seal.login_of(self.request.cookies.get(LOGIN, ""), time.time())

    @property
    def wants_part(self) -> bool:
        """Whether htmx asks, which puts a part of the page into the page there is."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def token(self) -> str:
        """What every form carries."""
        return self.seal.form_token(self._visitor)

    def keep(self, cookie: str, value: str, *, seconds: int, strict: bool = False) -> None:
        """Set a cookie with the answer; ``seconds=0`` takes it away.

        A link of another site brings it along, or a mail would make a stranger of whoever follows
        it; what another site sends does not. A strict one comes with neither.
        """
        self._cookies[cookie] = (value, seconds, strict)

    async def form(self) -> dict[str, str]:
        """Return the fields of the form that was sent; of a repeated one, the last.

        Raises:
            Refusal: 400 when it is no form, 403 when it was not made for this visitor, 422 when
                a text cannot be stored.
        """
        body = await self.request.body()  # bounded by the guard
        try:
            fields = dict(
                parse_qsl(
                    body.decode("utf-8"),
                    keep_blank_values=True,
                    strict_parsing=bool(body),
                    errors="strict",
                    max_num_fields=_MOST_FIELDS,
                )
            )
        except ValueError:
            raise Refusal(400, "malformed-form", "The form cannot be read.") from None
        if not self.seal.is_form_token(fields.pop("token", ""), self._visitor):
            raise Refusal(403, "form-token", "This form was not made for you, or is too old.")
        problems = [(n, bad) for n, v in fields.items() if (bad := unstorable_text(v))]
        if problems:
            raise invalid(problems)
        if "name" in fields and (name := name_of(fields["name"])):
            self.name = name
            self.keep(NAME, name.encode().hex(), seconds=_YEAR)
        return {name: value.replace("\r\n", "\n") for name, value in fields.items()}

    @property
    def actor(self) -> str:
        """Who decides, for the record."""
        return self.name or "web"

    async def show(self, template: str, *, code: int = 200, **values: Any) -> Response:
        """Return a page, with what every page needs."""
        return self.answer(self.filled(template, await self.frame(), **values), code)

    def filled(self, template: str, frame: dict[str, Any], **values: Any) -> str:
        """Return a template filled in."""
        return render(template, self.t, **{**frame, **values})

    async def frame(self) -> dict[str, Any]:
        """Return what every page shows around what it is about."""
        return {
            "path": self.request.url.path,
            "itself": itself("", self.request.query_params.multi_items()),
            "token": self.token,
            "name": self.name,
            "logged_in": True,
            "with_login": self.seal.wants_login,
            "waiting_count": await self.here.sessions.lists.waiting_count(),
        }

    def answer(self, html: str, code: int = 200) -> Response:
        """Return HTML as the answer."""
        return self._with_cookies(page(html, code))

    def see_other(self, url: str) -> Response:
        """Send the browser on with a GET, so that a reload repeats nothing."""
        return self._with_cookies(RedirectResponse(url, status_code=303))

    def _with_cookies(self, response: Response) -> Response:
        for cookie, (value, seconds, strict) in self._cookies.items():
            response.set_cookie(
                cookie,
                value,
                max_age=seconds,
                httponly=True,
                samesite="strict" if strict else "lax",
                secure=self.request.url.scheme == "https",
            )
        return response


def key_of(form: Mapping[str, str], what: str) -> str | None:
    """Return the key under which a form that is sent twice counts once.

    It stands for what the form says: going back gives it again with the same ``once``, and what was
    changed in it by then is another decision, not the same one repeated.
    """
    once = form.get("once", "")
    if not (once.isalnum() and len(once) <= 64):
        return None
    said = blake2b(json.dumps(sorted(form.items())).encode(), digest_size=16).hexdigest()
    return f"web:{what}:{once}:{said}"


def name_of(text: str) -> str:
    """Return a name as it is recorded: one line, not too long."""
    return " ".join(text.split())[:_LONGEST_NAME]


def _kept_name(value: str) -> str:
    """Return the name of a cookie, where it is in hexadecimal: a name may be of any script."""
    try:
        return name_of(bytes.fromhex(value).decode())
    except ValueError:
        return ""


async def _visit(request: Request, here: Here) -> Visit:
    return Visit(request, here)


Visiting = Annotated[Visit, Depends(_visit)]


class PageRoute(APIRoute):
    """A route whose refusals are pages."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the handler with our errors around it."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Refusal as refusal:
                return error_page(refusal, request.scope)
            except EkidenError as error:
                address = request.app.state.services.sessions.address
                return error_page(refusal_of(error, address), request.scope)
            except RequestValidationError:
                return error_page(
                    Refusal(404, "not-found", "There is nothing at this address."),
                    request.scope,
                )

        return handled

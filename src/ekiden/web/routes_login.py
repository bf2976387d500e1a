"""The login, and the files that every page needs, before it as well."""

from __future__ import annotations

import ipaddress
import math
import time
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ekiden.errors import DatabaseError
from ekiden.web.assets import assets
from ekiden.web.door import LOGIN
from ekiden.web.language import itself
from ekiden.web.rendering import page, render
from ekiden.web.seal import LOGIN_SECONDS
from ekiden.web.spans import lasting
from ekiden.web.visit import PageRoute, Visit, Visiting

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_FOR_GOOD = "public, max-age=31536000, immutable"


def _inside(url: str) -> str:
    """Return where to go on to: a path of ours, never another site."""
    fits = url.startswith("/") and not url.startswith(("//", "/\\")) and url.isprintable()
    return url if fits and len(url) < 2000 and "\\" not in url else "/"


@router.get("/login")
async def login(
    visit: Visiting, request: Request, going_to: Annotated[str, Query(alias="next")] = "/"
) -> Response:
    """Ask for the key."""
    wanted = _inside(going_to)
    if not visit.seal.wants_login:
        return visit.see_other(wanted)
    # The strict cookie does not come along from another site's link; a second try from here does.
    linked = request.headers.get("sec-fetch-site") == "cross-site" and wanted != "/"
    return _ask(visit, wanted, linked=linked)


def _ask(
    visit: Visit, wanted: str, status: int = 200, *, linked: bool = False, wrong: str = ""
) -> Response:
    html = render(
        "login.html", visit.t, path="", itself=itself("/login", [("next", wanted)]),
        token=visit.token, wanted=wanted, linked=linked, wrong=wrong, logged_in=False,
    )  # fmt: skip
    return visit.answer(html, status)


def address_of(request: Request) -> str:
    """Return who asks, as logins are counted: of IPv6, what one household has of it (a /64).

    A proxy in front is one address; what it says of others anybody could say.
    """
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "local"  # a socket of this machine
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@router.post("/login")
async def log_in(visit: Visiting, request: Request) -> Response:
    """Take the key and give a login for it; after too many wrong ones, look at none."""
    form = await visit.form()
    wanted = _inside(form.get("next", "/"))
    logins = visit.here.sessions.logins
    tried = await logins.count(address_of(request))
    if tried.id is None:
        wait = math.ceil(tried.wait)
        said = visit.t("login.too-many", time=lasting(math.ceil(wait / 60) * 60, visit.t))
        answer = _ask(visit, wanted, 429, wrong=said)
        answer.headers["Retry-After"] = str(wait)
        return answer
    if not visit.seal.is_key(form.get("key", "")):
        return _ask(visit, wanted, 401, wrong=visit.t("login.wrong"))
    await logins.forget(tried)
    visit.keep(LOGIN, visit.seal.login(time.time()), seconds=LOGIN_SECONDS, strict=True)
    return visit.see_other(wanted)


@router.post("/logout")
async def log_out(visit: Visiting) -> Response:
    """Take the login away from this browser, and end the streams of its open pages."""
    await visit.form()
    if (login := visit.login) is not None:
        visit.here.watchers.end(login.name)
        # Where the database is away, those at other processes end when the login's time is over.
        with suppress(DatabaseError):
            await visit.here.sessions.logins.tell_logout(login.name)
    visit.keep(LOGIN, "", seconds=0, strict=True)
    return visit.see_other("/login" if visit.seal.wants_login else "/")


@router.get("/static/{version}/{name}")
async def static(version: str, name: str, request: Request) -> Response:
    """Return a file. An address of another version has nothing: its page is older or newer."""
    found = assets().get(name)
    if found is None or found.version != version:
        return page("", 404)
    headers = {"Cache-Control": _FOR_GOOD, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            found.zipped, media_type=found.media_type,
            headers={**headers, "Content-Encoding": "gzip"},
        )  # fmt: skip
    return Response(found.content, media_type=found.media_type, headers=headers)

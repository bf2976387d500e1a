"""Who may see the pages: the part of the guard that knows about logins and about people.

The guard asks for every request to a path of ours. Without EKIDEN_API_KEY everybody on this machine
may; with it, whoever has logged in, or sends the key like any client of the API.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from ekiden.api.problems import Refusal
from ekiden.web.rendering import error_page
from ekiden.web.seal import Seal

LOGIN = "ekiden_login"  # the cookie
_LOGIN_PAGE = "/login"
_STATIC = "/static/"  # files of the package, nobody's secret; the login page needs them


class Door:
    """Implements ``ekiden.api.guard.PagesLike`` over the routes of the pages."""

    def __init__(self, routes: Sequence[Route], seal: Seal) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._seal = seal

    def covers(self, path: str) -> bool:
        """Whether this path is a page's."""
        scope: Scope = {"type": "http", "path": path, "method": "GET"}
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)

    def admits(self, scope: Scope) -> bool:
        """Whether who asks may see this page."""
        path: str = scope["path"]
        if not self._seal.wants_login or path == _LOGIN_PAGE or path.startswith(_STATIC):
            return True
        return self._seal.login_of(Request(scope).cookies.get(LOGIN, ""), time.time()) is not None

    def refused(self, refusal: Refusal, scope: Scope) -> Response:
        """Tell a person why not: as a page, or by asking them to log in."""
        if refusal.status == 401 and scope["method"] in {"GET", "HEAD"}:
            wanted = scope["path"]
            if scope.get("query_string"):
                wanted += "?" + scope["query_string"].decode("latin-1")
            return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", status_code=303)
        return error_page(refusal, scope, logged_in=refusal.status != 401)

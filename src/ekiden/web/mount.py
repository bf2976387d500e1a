"""Puts the pages onto the app."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route

from ekiden.api.settings import ApiSettings
from ekiden.web import (
    routes_drafts,
    routes_house,
    routes_login,
    routes_new,
    routes_reviews,
    routes_sessions,
    routes_tools,
)
from ekiden.web.door import Door
from ekiden.web.seal import Seal

_MODULES = (
    routes_sessions,
    routes_reviews,
    routes_new,
    routes_drafts,
    routes_house,
    routes_tools,
    routes_login,
)


def mount(app: FastAPI, settings: ApiSettings) -> Door:
    """Add every page, and return what tells the guard about them."""
    for module in _MODULES:
        app.include_router(module.router)
    routes = [r for module in _MODULES for r in module.router.routes if isinstance(r, Route)]
    return Door(routes, Seal(settings.api_key))

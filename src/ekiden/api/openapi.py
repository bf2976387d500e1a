"""What /openapi.json says beyond what the routes' signatures say."""

from __future__ import annotations

import http
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ekiden.api.given import Act, Archiving, Creation, Decision, Delivery, Forking, ReviewGiven
from ekiden.api.guard import OPEN_PATHS
from ekiden.api.problems import MEDIA_TYPE
from ekiden.api.shown import Problem
from ekiden.api.shown_progress import EventShown, PartialShown

_REF = "#/components/schemas/{model}"
_BODIES = (Act, Archiving, Creation, Decision, Delivery, Forking, ReviewGiven)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems a route answers with."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": http.HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }


def body(
    model: type[BaseModel], *, required: bool = False, or_else: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Document a request body that the route reads itself, with our limits on JSON."""
    schema: dict[str, Any] = {"$ref": _REF.format(model=model.__name__)}
    if or_else is not None:
        schema = {"anyOf": [schema, or_else]}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


# One server-sent event, as OpenAPI 3.2 §4.14.4 describes it.
EVENT_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "event": {"type": "string"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": _REF.format(model="EventShown")},
                            {"$ref": _REF.format(model="PartialShown")},
                        ]
                    },
                },
                "retry": {"type": "integer"},
            },
        }
    }
}


def document(app: FastAPI, *, with_key: bool) -> None:
    """Make the app describe its bodies, its problems and its key."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, with_key=with_key)
        return app.openapi_schema

    setattr(app, "openapi", described)  # noqa: B010 - FastAPI's documented way, a method to mypy


def _described(app: FastAPI, *, with_key: bool) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    _, given = models_json_schema([(m, "validation") for m in _BODIES], ref_template=_REF)
    _, shown = models_json_schema(
        [(m, "serialization") for m in (Problem, EventShown, PartialShown)], ref_template=_REF
    )
    components.update(given["$defs"])
    components.update(shown["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which we do not send
        components.pop(name, None)
    if with_key:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _complete(operation, path, with_key=with_key)
    return schema


def _complete(operation: dict[str, Any], path: str, *, with_key: bool) -> None:
    """Add what any route may answer, because the guard or the database does."""
    responses: dict[str, Any] = operation["responses"]
    common = [421, 503]
    if "422" in responses or "requestBody" in operation:
        common.append(422)
    if "requestBody" in operation:
        common += [400, 413, 415]
    if path in OPEN_PATHS:
        operation["security"] = []
    elif with_key:
        common.append(401)
    for status in common:
        if MEDIA_TYPE not in responses.get(str(status), {}).get("content", {}):
            responses[str(status)] = _problem(status)

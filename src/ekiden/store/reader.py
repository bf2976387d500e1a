"""Reading rows for people: what every such reader has."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from ekiden.store.connection import translated
from ekiden.store.queries import sql

_JSON = {"flow_phases", "output", "error", "body", "sources"}


class Reader:
    """A pool, and rows from it as dicts with their JSON read."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def _rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        with translated(self._dsn):
            return [fields_of(row) for row in await self._pool.fetch(sql(query), *args)]


def fields_of(row: asyncpg.Record) -> dict[str, Any]:
    """Return a row as a dict, its JSON columns read."""
    # Not orjson: it makes floats of long integers.
    return {k: json.loads(v) if k in _JSON and v is not None else v for k, v in row.items()}

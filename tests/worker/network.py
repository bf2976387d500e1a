"""A network between a worker and its database that a test can break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from chaos.proxy import Proxy


@asynccontextmanager
async def between(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the database, and the DSN that goes through it."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    proxy = Proxy(query["host"][0], int(query.get("port", ["5432"])[0]))
    await proxy.start()
    user = parts.netloc.rpartition("@")[0]
    try:
        yield proxy, f"postgresql://{user}@127.0.0.1:{proxy.port}{parts.path}"
    finally:
        await proxy.stop()

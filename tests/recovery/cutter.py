"""A proxy that knows a commit lane when it sees one, and loses its commits in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

HOWS = ("not sent", "half sent", "answer lost", "never answered")
_HANDOFF = b"WITH done AS"


class Cutter:
    """Forwards connections to a PostgreSQL; commits get lost while ``how`` is set."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._folder = parse_qs(parts.query)["host"][0]
        self._database = parts.path
        self.dsn = ""
        self.how: str | None = None
        self.lost = 0  # commits that met their fate

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Cutter]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.dsn = f"postgresql://ekiden@127.0.0.1:{port}{self._database}?sslmode=disable"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.5432")
        link = _Link(self)
        pumps = [
            asyncio.create_task(link.up(reader, there[1])),
            asyncio.create_task(link.down(there[0], writer)),
        ]
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (writer, there[1]):
            end.transport.abort()


class _Link:
    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._seen = 0  # messages from the one that parses the hand-off on; the next one plans it
        self._doomed: str | None = None

    async def up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if self._seen >= 2 and self._doomed is None and (how := self._cutter.how):
                self._doomed = how
                self._cutter.lost += 1
                if how == "not sent":
                    return
                if how == "half sent":
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    return
            self._seen += self._seen > 0 or _HANDOFF in data
            writer.write(data)
            await writer.drain()

    async def down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if self._doomed == "answer lost":
                return
            if self._doomed == "never answered":
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()

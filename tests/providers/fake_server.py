"""An HTTP server on loopback that answers chat requests exactly as badly as it is told to.

Written on bare sockets, because the interesting answers (cut in the middle, shorter than their
Content-Length, silent) are the ones a web framework would not let us send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeServer:
    """Use as ``async with FakeServer() as server``; set ``server.reply`` and ask ``server.url``.

    ``server.answering`` decides by the request, where one reply for all will not do.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.reply: Reply = answer(sse(chunk("hello"), chunk("", finish="stop"), done=True))
        self.answering: Callable[[Received], Reply] = lambda _received: self.reply
        self.hung_up = asyncio.Event()  # a client went away while a reply was still going on

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/v1"
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()  # ends its task the way a client that hangs up does
        await asyncio.gather(*self._open)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        parts: list[asyncio.Future[None]] = []
        try:
            received = await _received(reader)
            self.requests.append(received)
            reply = asyncio.ensure_future(self.answering(received)(writer))
            gone = asyncio.ensure_future(_until_hung_up(reader))
            parts = [reply, gone]
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                self.hung_up.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # connected, and said nothing
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            del self._open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _until_hung_up(reader: asyncio.StreamReader) -> None:
    await reader.read()


async def _received(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method=method, path=path, headers=headers, body=body)


# What to answer with.


def chunk(text: str, *, finish: str | None = None, **extra: Any) -> bytes:
    """One piece of a streamed answer."""
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"model": "fake-1", "choices": [choice]} | extra).encode()


def completion(text: str, *, finish: str = "stop", **extra: Any) -> bytes:
    """A whole answer of a server that does not stream."""
    choice = {"index": 0, "message": {"content": text}, "finish_reason": finish}
    return json.dumps({"model": "fake-1", "choices": [choice]} | extra).encode()


def sse(*events: bytes, done: bool = False) -> bytes:
    """Events as they go over the wire."""
    all_events = [*events, b"[DONE]"] if done else events
    return b"".join(b"data: " + event + b"\n\n" for event in all_events)


def answer(
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "text/event-stream",
    headers: dict[str, str] | None = None,
    claims: int | None = None,
) -> Reply:
    """Answer with this body; ``claims`` is a Content-Length that is not true."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = {"Content-Type": content_type, "Connection": "close"} | (headers or {})
        if claims is not None:
            lines["Content-Length"] = str(claims)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Told\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return reply


def in_pieces(*pieces: bytes) -> Reply:
    """Send each piece in a packet of its own, and hang up after the last."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)  # so that the kernel does not glue them together

    return reply


def then_silence(body: bytes) -> Reply:
    """Send the head and this much of the body, and then nothing more, ever."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await answer(body)(writer)
        await asyncio.Event().wait()

    return reply


async def nothing(_writer: asyncio.StreamWriter) -> None:
    """Accept the request and never answer."""
    await asyncio.Event().wait()


async def slam(writer: asyncio.StreamWriter) -> None:
    """Hang up without a word."""
    writer.transport.abort()

"""A search service on a real socket that answers what it is told to."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qsl, urlsplit


class Server:
    """Answers every request with what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b'{"results": []}'
        self.answers = True
        self.line = ""
        self.received: dict[str, str] = {}
        self.asked: dict[str, object] = {}
        self.times = 0
        self.url = ""

    def says(self, answer: object) -> None:
        self.body = json.dumps(answer).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.times += 1
        self.line = head[0]
        self.received = {k.lower(): v for k, v in (h.split(": ", 1) for h in head[1:] if h)}
        if length := int(self.received.get("content-length", "0")):
            self.asked = json.loads(await reader.readexactly(length))
        else:
            self.asked = dict(parse_qsl(urlsplit(self.line.split(" ")[1]).query))
        if self.answers:
            headers = {"Content-Length": str(len(self.body)), "Connection": "close"}
            lines = "".join(f"{k}: {v}\r\n" for k, v in (headers | self.headers).items())
            writer.write(f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode() + self.body)
            await writer.drain()
        else:
            await reader.read()  # until the other side has had enough
        writer.close()

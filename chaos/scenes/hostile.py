"""A model server that answers with what models and the servers before them do send.

Its first answer to each question is hostile, one kind a session, and every later one is good. Each
hostile answer must be in the ledger byte for byte, and every session must come to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chaos import answers
from chaos.house import House, NotReached, Site
from chaos.provider import _receive as receive
from chaos.provider import _send_bytes as respond

_MEGABYTE = 2**20
_PATIENCE = 120.0  # seconds


def _said(text: str) -> bytes:
    """Return a completion that says this; what JSON cannot hold is escaped, as servers do."""
    return json.dumps(
        {
            "id": "chatcmpl-hostile",
            "object": "chat.completion",
            "created": 1,
            "model": "chaos-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()


def _raw(content: bytes) -> bytes:
    """Return a completion whose content is these very bytes between the quotes."""
    return _said("@@").replace(b"@@", content)


def _streamed(*pieces: bytes, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + piece + b"\n\n" for piece in pieces) + end


def _chunk(text: str) -> bytes:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    whole = {"id": "chatcmpl-hostile", "object": "chat.completion.chunk", "created": 1,
             "model": "chaos-1", "choices": [delta]}  # fmt: skip
    return json.dumps(whole).encode()


@dataclass(frozen=True, slots=True)
class Hostile:
    """One kind of answer."""

    make: Callable[[], bytes]
    content_type: str = "application/json"
    cut: bool = False  # the connection ends in the middle: not an answer, so not in the ledger


# What parses as JSON and still is no answer, and what parses as nothing at all.
KINDS: dict[str, Hostile] = {
    "NUL in the text": Hostile(lambda: _said('{"topic": "a\x00b"')),
    "NUL bytes in the body": Hostile(lambda: _raw(b"\x00\x00\x00")),
    "a lone surrogate": Hostile(lambda: _said('{"topic": "\ud800", "weights": [1')),
    "half of an UTF-8 character": Hostile(lambda: _raw(b"\xe3\x81")),
    "NaN and Infinity": Hostile(lambda: _said('{"topic": NaN, "weights": [Infinity, 1, 2]}')),
    "NaN beside the text": Hostile(lambda: _said("x").replace(b'"total_tokens": 2', b'"n": NaN')),
    "a number of 5,000 digits": Hostile(
        lambda: _said('{"topic": "a", "weights": [' + "9" * 5000 + ", 1, 2]}")
    ),
    "5,000 digits of usage": Hostile(
        lambda: _said("x").replace(b'"total_tokens": 2', b'"prompt_tokens": ' + b"9" * 5000)
    ),
    "1e400": Hostile(lambda: _said('{"topic": "a", "weights": [1e400, 1, 2]}')),
    "100,000 brackets deep": Hostile(lambda: _said("[" * 100_000)),
    "100,000 brackets around the answer": Hostile(lambda: b'{"choices":' + b"[" * 100_000),
    "duplicate keys": Hostile(lambda: _said('{"topic": 1, "topic": 2, "topic": [3]}')),
    "50 MB": Hostile(lambda: _said("x" * (50 * _MEGABYTE))),
    "HTML with 200": Hostile(lambda: b"<!doctype html><h1>502 Bad Gateway</h1>", "text/html"),
    "truncated JSON": Hostile(lambda: _said("x" * 200)[:150]),
    "nothing": Hostile(lambda: b""),
    "an empty text": Hostile(lambda: _said("")),
    "no choices": Hostile(lambda: b'{"id": "x", "choices": []}'),
    "a stream of nothing": Hostile(_streamed, "text/event-stream"),
    "a stream of nonsense": Hostile(lambda: _streamed(b"{", b"\x00", b"[1"), "text/event-stream"),
    "a stream that is cut": Hostile(
        lambda: _streamed(_chunk("half of"), end=b'data: {"choi'), "text/event-stream", cut=True
    ),
    "an answer that is cut": Hostile(lambda: _said("x" * 500), cut=True),
}


@dataclass
class Server:
    """Answers each question badly once, then well."""

    seed: int
    sent: dict[str, bytes] = field(default_factory=dict)  # by kind, the first that went out
    asked: set[tuple[str, str]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            _, _, body = await receive(reader)
            asked = json.loads(body)
            question = answers.question_of(asked["messages"])
            kind = answers.key_of(question)
            large = len(self.sent.get(kind, b"")) > _MEGABYTE  # once a session is enough of those
            if large or (kind, question) in self.asked:
                schema = asked.get("response_format", {}).get("json_schema", {}).get("schema")
                good = _said(answers.answer(self.seed, question, schema))
                await respond(writer, 200, good, "application/json")
            else:
                self.asked.add((kind, question))
                await self._hostile(kind, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _hostile(self, kind: str, writer: asyncio.StreamWriter) -> None:
        hostile = KINDS[kind]
        body = hostile.make()
        self.sent.setdefault(kind, body)
        if hostile.cut:
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: {hostile.content_type}\r\n"
                f"Content-Length: {len(body) * 2}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
        else:
            await respond(writer, 200, body, hostile.content_type)


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return how many kinds were stored byte for byte, and how many sessions did not end well."""
    del short
    hostile = Server(site.seed)
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    async with House(site) as house:
        # One after the other would take long; all at once would hold gigabytes.
        worker = house.worker(OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1", WORKER_BATCH_SIZE="4")
        await worker.is_ready()
        for kind in KINDS:
            await house.create(kind)
        with contextlib.suppress(NotReached):
            await house.drain(_PATIENCE)
        statuses = await house.statuses()
        stuck = [key for session, key in house.created.items() if statuses[session] != "COMPLETED"]
        whole = {kind: body for kind, body in hostile.sent.items() if not KINDS[kind].cut}
        missing = [kind for kind, body in whole.items() if not await _stored(house, kind, body)]
        if not worker.alive:
            stuck.append(f"the worker died: {worker.last_words()}")
    server.close()
    return {
        "n": len(whole),
        "cut": len(hostile.sent) - len(whole),
        "stored": len(whole) - len(missing),
        "missing": missing,
        "stuck": len(stuck),
        "stuck_on": stuck,
    }


async def _stored(house: House, kind: str, body: bytes) -> bool:
    """Whether the ledger has these very bytes, and says that they were of no use."""
    session = next(id_ for id_, key in house.created.items() if key == kind)
    return bool(
        await house.pool.fetchval(
            "SELECT EXISTS (SELECT FROM ekiden.calls WHERE session_id = $1 AND"
            " octet_length(answer) = $2 AND sha256(answer) = sha256($3))",
            session,
            len(body),
            body,
        )
    )

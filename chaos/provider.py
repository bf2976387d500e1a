"""A scripted model server on loopback: the OpenAI wire format, as badly as it is told to.

    python -m chaos.provider --port-file FILE --log FILE --seed N

Its answers are a function of seed and question (see ``answers``). How they travel is decided by
probabilities set at run time (``POST /control``), drawn from one seeded generator. Its log is the
billing oracle: one line a request, flushed before the first byte of the answer, and a second line
once the last byte was handed to the kernel.

    {"event": "asked", "id", "at", "question", "key", "prompt", "seed", "behaviour", "status",
     "billed"}
    {"event": "sent", "id", "at"}
    {"event": "fetched", "id", "at", "status"}          GET /v1/chat/completions/{id}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import struct
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

from chaos import answers

MODEL = "chaos-1"
_PIECES = 12  # chunks of a streamed answer
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(slots=True, kw_only=True)
class Control:
    """How the server behaves. What is not a probability says so."""

    delay: float = 0.0  # the answer begins after delay_s
    stall: float = 0.0  # half of the answer, then silence for stall_s or until the client leaves
    reset_at_99: float = 0.0  # the connection is reset after 99 % of the bytes
    truncated_stream: float = 0.0  # half of the answer, then a clean end
    busy429: float = 0.0  # 429 without Retry-After
    busy429_retry_after: float = 0.0  # 429 with Retry-After: retry_after_s
    error5xx: float = 0.0  # 500, 502, 503 or 529
    garbage: float = 0.0  # a whole answer of nonsense: NUL, lone surrogates, half a document
    html200: float = 0.0  # a proxy's page with status 200
    delay_s: float = 0.3  # seconds
    stall_s: float = 3600.0  # seconds
    retry_after_s: float = 0.25  # seconds
    piece_s: float = 0.0  # seconds between two pieces of every answer
    fetchable: bool = True  # whether an answer can be fetched again by its id


_FAULTS = (
    "busy429", "busy429_retry_after", "error5xx", "html200", "garbage", "truncated_stream",
    "reset_at_99", "stall", "delay",
)  # fmt: skip
_NOT_BILLED = {"busy429", "busy429_retry_after", "error5xx", "html200"}
_NONSENSE = (
    '{"half": [1, 2',
    "\u0000\u0000\u0000",
    "\ud800 alone",
    '{"value": NaN, "big": 1e400}',
    "[" * 2000,
    "",
)


@dataclass(slots=True)
class Provider:
    """The server: state, log and routes."""

    seed: int
    log: TextIO
    control: Control = field(default_factory=Control)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)  # answers by id
    dice: random.Random = field(init=False)
    nonsense: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def note(self, event: str, id_: str, **more: Any) -> None:
        """Write a line and hand it to the kernel, which outlives us."""
        line = {"event": event, "id": id_, "at": time.time(), **more}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request, one answer."""
        writer.transport.set_write_buffer_limits(0)  # drained is: handed to the kernel
        try:
            method, path, body = await _receive(reader)
            await self._route(method, path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone; the log says how far we came
        finally:
            with suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    async def _route(
        self,
        method: str,
        path: str,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if (method, path) == ("POST", "/v1/chat/completions"):
            await self._complete(json.loads(body), reader, writer)
        elif method == "GET" and path.startswith("/v1/chat/completions/"):
            await self._fetch(path.rpartition("/")[2], writer)
        elif (method, path) == ("GET", "/v1/models"):
            models = [{"id": MODEL, "object": "model"}]
            await _send(writer, 200, {"object": "list", "data": models})
        elif (method, path) == ("POST", "/control"):
            self._set(json.loads(body))
            await _send(writer, 200, asdict(self.control))
        elif (method, path) == ("GET", "/control"):
            await _send(writer, 200, asdict(self.control))
        else:
            await _send(writer, 404, {"error": {"message": f"no {method} {path}"}})

    def _set(self, wanted: dict[str, Any]) -> None:
        """Set what is named; ``{"heal": true}`` puts everything back first."""
        if wanted.pop("heal", False):
            self.control = Control()
        known = {f.name for f in fields(Control)}
        for name, value in wanted.items():
            if name not in known:
                raise ValueError(f"/control: no {name!r}; known: {', '.join(sorted(known))}")
            setattr(self.control, name, value)

    def _behaviour(self) -> str:
        """Draw what happens to the next answer; every fault is drawn for, so draws stay aligned."""
        drawn = [name for name in _FAULTS if self.dice.random() < getattr(self.control, name)]
        return drawn[0] if drawn else "ok"

    async def _complete(
        self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        messages = asked["messages"]
        schema = asked.get("response_format", {}).get("json_schema", {}).get("schema")
        question = answers.question_of(messages)
        behaviour = self._behaviour()
        status = 200
        if behaviour.startswith("busy429"):
            status = 429
        elif behaviour == "error5xx":
            status = self.dice.choice((500, 502, 503, 529))
        id_ = f"chatcmpl-{uuid.uuid4().hex}"
        self.note(
            "asked",
            id_,
            question=answers.question_hash([[m["role"], m["content"]] for m in messages], schema),
            key=answers.key_of(question),
            prompt=question[:160],
            seed=asked.get("seed"),
            behaviour=behaviour,
            status=status,
            billed=behaviour not in _NOT_BILLED,
        )
        if status != 200:
            headers = {}
            if behaviour == "busy429_retry_after":
                headers["Retry-After"] = f"{self.control.retry_after_s:g}"
            await _send(writer, status, {"error": {"message": "come back later"}}, headers)
            return
        if behaviour == "html200":
            page = b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"
            await _send_bytes(writer, 200, page, "text/html")
            return
        text = answers.answer(self.seed, question, schema)
        if behaviour == "garbage":
            self.nonsense += 1
            text = _NONSENSE[self.nonsense % len(_NONSENSE)]
        if behaviour == "delay":
            await asyncio.sleep(self.control.delay_s)
        whole = _completion(id_, text, question)
        if self.control.fetchable:
            self.kept[id_] = whole
        if asked.get("stream"):
            usage = asked.get("stream_options", {}).get("include_usage", False)
            await self._stream(id_, whole, behaviour, reader, writer, usage=usage)
        else:
            await self._plain(id_, whole, behaviour, reader, writer)

    async def _plain(
        self,
        id_: str,
        whole: dict[str, Any],
        behaviour: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        data = json.dumps(whole).encode()
        writer.write(_head(200, "application/json", {"Content-Length": str(len(data))}))
        cut = _cut(behaviour, len(data))
        writer.write(data[:cut])
        await writer.drain()
        await self._end(id_, behaviour, reader, writer)

    async def _stream(
        self,
        id_: str,
        whole: dict[str, Any],
        behaviour: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        usage: bool,
    ) -> None:
        events = _events(id_, whole, usage=usage)
        total = sum(len(event) for event in events)
        left = _cut(behaviour, total)
        writer.write(_head(200, "text/event-stream", {"Transfer-Encoding": "chunked"}))
        for event in events:
            piece = event[:left]
            left -= len(piece)
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            if self.control.piece_s:
                await asyncio.sleep(self.control.piece_s)
        if behaviour not in {"stall", "reset_at_99"}:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        await self._end(id_, behaviour, reader, writer)

    async def _end(
        self,
        id_: str,
        behaviour: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """All that this behaviour sends is sent: note it, stall, or reset."""
        if behaviour == "stall":
            with suppress(TimeoutError):
                async with asyncio.timeout(self.control.stall_s):
                    await reader.read()  # returns when the client leaves
        elif behaviour == "reset_at_99":
            await asyncio.sleep(0.02)  # a reset overtakes what the client has not read yet
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
        elif behaviour != "truncated_stream":
            self.note("sent", id_)

    async def _fetch(self, id_: str, writer: asyncio.StreamWriter) -> None:
        found = self.kept.get(id_) if self.control.fetchable else None
        self.note("fetched", id_, status=200 if found else 404)
        if found is None:
            await _send(writer, 404, {"error": {"message": f"no completion {id_}"}})
        else:
            await _send(writer, 200, found)


def _completion(id_: str, text: str, question: str) -> dict[str, Any]:
    spent, written = len(question) // 4 + 1, len(text) // 4 + 1
    message = {"role": "assistant", "content": text}
    return {
        "id": id_,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": spent,
            "completion_tokens": written,
            "total_tokens": spent + written,
        },
    }


def _events(id_: str, whole: dict[str, Any], *, usage: bool) -> list[bytes]:
    """Return the events of a streamed answer, as bytes."""
    text = whole["choices"][0]["message"]["content"]
    base = {
        "id": id_,
        "object": "chat.completion.chunk",
        "created": whole["created"],
        "model": whole["model"],
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    size = max(1, -(-len(text) // _PIECES))
    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text[at : at + size]}) for at in range(0, len(text), size)]
    chunks.append(chunk({}, "stop"))
    if usage:
        chunks.append(base | {"choices": [], "usage": whole["usage"]})
    lines = [json.dumps(one).encode() for one in chunks] + [b"[DONE]"]
    return [b"data: " + line + b"\n\n" for line in lines]


def _cut(behaviour: str, total: int) -> int:
    """Return how many bytes of the answer this behaviour lets through."""
    if behaviour in {"stall", "truncated_stream"}:
        return total // 2
    # 99 %, and never the end of the answer itself: what follows the text is short.
    return min(total * 99 // 100, total - 1) if behaviour == "reset_at_99" else total


async def _receive(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return method, path, body


def _head(status: int, content_type: str, headers: dict[str, str]) -> bytes:
    lines = {"Content-Type": content_type, "Connection": "close", **headers}
    named = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Told\r\n{named}\r\n".encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter, status: int, value: Any, headers: dict[str, str] | None = None
) -> None:
    await _send_bytes(writer, status, json.dumps(value).encode(), "application/json", headers)


async def _send_bytes(
    writer: asyncio.StreamWriter,
    status: int,
    data: bytes,
    content_type: str,
    headers: dict[str, str] | None = None,
) -> None:
    lengths = {"Content-Length": str(len(data)), **(headers or {})}
    writer.write(_head(status, content_type, lengths) + data)
    await writer.drain()


async def run(seed: int, port: int, port_file: Path, log: Path) -> None:
    """Serve until SIGTERM."""
    with log.open("a", encoding="utf-8") as lines:
        provider = Provider(seed, lines)
        server = await asyncio.start_server(provider.serve, "127.0.0.1", port, limit=2**20)
        draft = port_file.with_suffix(".draft")
        draft.write_text(str(server.sockets[0].getsockname()[1]))
        draft.replace(port_file)  # whoever waits for it never reads half a number
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        server.close()


def main() -> None:
    """Run the provider."""
    parser = argparse.ArgumentParser(prog="python -m chaos.provider", description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="the port is written here")
    parser.add_argument("--log", type=Path, required=True, help="the billing oracle, JSON lines")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    given = parser.parse_args()
    if given.parent:
        _end_with(given.parent)
    asyncio.run(run(given.seed, given.port, given.port_file, given.log))


def _end_with(parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise SystemExit("the parent is gone already")


if __name__ == "__main__":
    main()

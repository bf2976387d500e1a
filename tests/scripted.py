"""A provider that says what the test wants, and keeps the log that the test judges by."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ekiden.errors import AnswerInvalid
from ekiden.providers.protocol import Answer, ModelRequest, RawAnswer, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer that comes in pieces, and may break off after them."""

    pieces: tuple[str, ...]
    then: asyncio.Event | Exception | None = None  # waited for, or raised, after the last piece
    answer_id: str | None = None  # told at the first event
    usage: Usage | None = None  # what was said of it before the stream broke off

    @property
    def text(self) -> str:
        return "".join(self.pieces)


Said = str | bytes | Exception | Streamed
Script = Callable[[ModelRequest], Said | Awaitable[Said]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One request that reached the provider."""

    number: int  # 1, 2, ... in the order of arrival
    request: ModelRequest
    said: Said | None  # None while it is not answered, or if the caller went away before

    @property
    def answered(self) -> bool:
        return isinstance(self.said, str | bytes)


class ScriptedProvider:
    """Implements `ekiden.providers.protocol.Provider` without a network.

    Args:
        script: a function from request to answer (it may be async), or answers to give in turn.
            An exception is raised, text and bytes are the raw body of the answer, and a
            `Streamed` comes in pieces.
        gate: a request waits here, after it was logged and before it is answered.
        log_file: answered requests are appended here as well, one JSON line each, in one write:
            the log that survives the kill -9 of the process under test.

    ``log`` holds every request; ``answered`` those that got an answer. ``arrived`` is set when a
    request comes in, so that a test can wait for one that hangs at the gate. ``stored`` are the
    answers it keeps, by id; ``fetched`` the ids it was asked for.
    """

    def __init__(
        self,
        script: Script | Iterable[Said],
        *,
        name: str = "scripted",
        model: str = "scripted-1",
        gate: asyncio.Event | None = None,
        log_file: Path | None = None,
        cost_usd: float | None = 0.001,
    ) -> None:
        self._script: Script = script if callable(script) else _in_turn(script)
        self._name = name
        self._model = model
        self.gate = gate
        self._log_file = log_file
        self._cost_usd = cost_usd
        self.log: list[Logged] = []
        self.arrived = asyncio.Event()
        self.stored: dict[str, str | Exception] = {}
        self.fetched: list[str] = []
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def model(self) -> str:
        return self._model

    @property
    def answered(self) -> list[Logged]:
        return [entry for entry in self.log if entry.answered]

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        index = len(self.log)
        self.log.append(Logged(number=index + 1, request=request, said=None))
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        said = self._script(request)
        if not isinstance(said, str | bytes | Exception | Streamed):
            said = await said
        if isinstance(said, Streamed):
            said = await _stream(said, on_text, on_id, on_usage)
            on_text = None
        self.log[index] = replace(self.log[index], said=said)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str) and on_text is not None:
            for piece in said.splitlines(keepends=True):
                on_text(piece)
        body = said.encode("utf-8", "surrogatepass") if isinstance(said, str) else said
        self._write(index + 1, request, body)
        return RawAnswer(body=body, status=200, content_type="text/plain")

    async def fetch(self, answer_id: str) -> RawAnswer | None:
        self.fetched.append(answer_id)
        kept = self.stored.get(answer_id)
        if isinstance(kept, Exception):
            raise kept
        if kept is None:
            return None
        return RawAnswer(body=kept.encode(), status=200, content_type="text/plain")

    def read(self, raw: RawAnswer) -> Answer:
        try:
            text = raw.body.decode()
        except UnicodeDecodeError as error:
            raise AnswerInvalid(f"The scripted answer is not text: {error}") from None
        usage = Usage(
            input_tokens=10, output_tokens=len(text.split()) or 1, cost_usd=self._cost_usd
        )
        return Answer(text=text, finish_reason="stop", model=self._model, usage=usage)

    async def close(self) -> None:
        self.closed = True

    def _write(self, number: int, request: ModelRequest, body: bytes) -> None:
        if self._log_file is None:
            return
        entry = {
            "number": number,
            "pid": os.getpid(),
            "at": time.time(),
            "asked": [message.content for message in request.messages],
            "schema": request.schema_name if request.schema else None,
            "seed": request.seed,
            "said": body.decode("utf-8", "replace"),
        }
        with self._log_file.open("ab", buffering=0) as file:  # O_APPEND: lines never interleave
            file.write(json.dumps(entry).encode() + b"\n")


async def _stream(
    said: Streamed,
    on_text: Callable[[str], None] | None,
    on_id: Callable[[str], Awaitable[None]] | None,
    on_usage: Callable[[Usage], None] | None,
) -> str | Exception:
    """Tell an answer piece by piece; return its text, or what broke it off."""
    if on_id is not None and said.answer_id is not None:
        await on_id(said.answer_id)
    try:
        for piece in said.pieces:
            if on_text is not None:
                on_text(piece)
            await asyncio.sleep(0)
        if isinstance(said.then, asyncio.Event):
            await said.then.wait()
    except asyncio.CancelledError:
        if on_usage is not None and said.usage is not None:
            on_usage(said.usage)
        raise
    if isinstance(said.then, Exception):
        if on_usage is not None and said.usage is not None:
            on_usage(said.usage)
        return said.then
    return said.text


def read_log(path: Path) -> list[dict[str, object]]:
    """Return the entries of a ``log_file``, of all processes that wrote to it."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _in_turn(answers: Iterable[Said]) -> Script:
    remaining = iter(answers)

    def script(_request: ModelRequest) -> Said:
        try:
            return next(remaining)
        except StopIteration:
            raise AssertionError("the test scripted fewer answers than were asked for") from None

    return script

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

Said = str | bytes | Exception
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
            An exception is raised, text and bytes are the raw body of the answer.
        gate: a request waits here, after it was logged and before it is answered.
        log_file: answered requests are appended here as well, one JSON line each, in one write:
            the log that survives the kill -9 of the process under test.

    ``log`` holds every request; ``answered`` those that got an answer. ``arrived`` is set when a
    request comes in, so that a test can wait for one that hangs at the gate.
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
        on_id: Callable[[str], None] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        index = len(self.log)
        self.log.append(Logged(number=index + 1, request=request, said=None))
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        said = self._script(request)
        if not isinstance(said, str | bytes | Exception):
            said = await said
        self.log[index] = replace(self.log[index], said=said)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str) and on_text is not None:
            for piece in said.splitlines(keepends=True):
                on_text(piece)
        body = said.encode("utf-8", "surrogatepass") if isinstance(said, str) else said
        self._write(index + 1, request, body)
        return RawAnswer(body=body, status=200, content_type="text/plain")

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

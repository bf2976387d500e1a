"""Understand what a model server sent: a stream of events or one JSON document.

Two readers share these functions: `StreamListener` listens while the bytes come in (for the
pieces that people watch, and to know whether the stream was cut), `read_body` reads the whole,
fresh or from the ledger. Neither trusts anything: the bytes may be HTML from a proxy, half a
document, or a text that no database can store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ekiden.errors import AnswerInvalid
from ekiden.providers.parts import GONE, Parts
from ekiden.providers.protocol import RawAnswer, storable

_DONE = "[DONE]"
_BOM = b"\xef\xbb\xbf"  # some servers begin with one
_SHOWN = 120  # characters of a strange body that an error message quotes


# What may stand in an address: the id comes from a stranger.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


class StreamListener:
    """Listens to a body while it arrives.

    Args:
        on_text: hears each piece of text.
        on_id: hears the id of the answer, once, at its first event.
    """

    def __init__(
        self,
        on_text: Callable[[str], None] | None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._on_text = on_text
        self._on_id = on_id
        self._noting: Awaitable[None] | None = None
        self._line = bytearray()
        self._half = ""  # the first half of a character whose second half is still to come
        self.parts = Parts()

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the body."""
        self._line += chunk
        if b"\n" not in chunk and b"\r" not in chunk:
            return
        # A data field never spans lines in this protocol, so lines are all there is to know.
        *lines, rest = bytes(self._line).replace(b"\r", b"\n").split(b"\n")
        self._line[:] = rest
        for line in lines:
            self._hear(line)

    def name(self, body: bytes) -> None:
        """Take the id out of a body that is no stream, if it has one."""
        try:
            self._name(json.loads(body, strict=False))
        except (ValueError, RecursionError):
            return

    async def noted(self) -> None:
        """Return once whoever hears ids has noted the one that came, if one did."""
        noting, self._noting = self._noting, None
        if noting is not None:
            await noting

    def close(self) -> Parts:
        """The body is over: return what was understood."""
        self._hear(bytes(self._line))
        self._line.clear()
        self._tell("", last=True)
        return self.parts

    def _hear(self, line: bytes) -> None:
        data = _event_data(line)
        if data is None:
            return
        if data == _DONE:
            self.parts.done = True
            return
        try:
            document = json.loads(data, strict=False)
        except (ValueError, RecursionError):
            return  # read() will say what is wrong with it; a listener does not judge
        self._name(document)
        self._tell(self.parts.add(document))

    def _name(self, document: Any) -> None:
        if self._on_id is None or not isinstance(document, dict):
            return
        # Beside the text, or of what the event is about: a message, a response.
        about = document.get("message") or document.get("response")
        answer_id = (about if isinstance(about, dict) else document).get("id")
        if isinstance(answer_id, str) and _ID.fullmatch(answer_id):
            self._noting = self._on_id(answer_id)
            self._on_id = None

    def _tell(self, piece: str, *, last: bool = False) -> None:
        if self._on_text is None:
            return
        piece = self._half + piece
        self._half = ""
        if piece and not last and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        if piece:
            self._on_text(storable(piece))


def _event_data(line: bytes) -> str | None:
    line = line.removeprefix(_BOM)
    if not line.startswith(b"data:"):
        return None
    return line[5:].decode("utf-8", "replace").strip()


def read_body(body: bytes, content_type: str = "") -> Parts:
    """Understand a whole body, whatever its headers claim.

    Raises:
        AnswerInvalid: it is neither a stream of an answer's events nor an answer.
    """
    kind = content_type.partition(";")[0].strip()
    start = body.removeprefix(_BOM).lstrip()
    if not start:
        raise AnswerInvalid(f"The answer is empty{_of_type(kind)}.")
    parts = Parts()
    if start[:1] in b"{[":
        parts.add(_document(start))
    elif start.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        for data in _events(body):
            if data == _DONE:
                parts.done = True
            else:
                parts.add(_chunk(data))
        if parts.choices and parts.error is None and not parts.complete:
            raise AnswerInvalid(f"The stream ends before its end: {_quote(body, end=True)}")
    else:
        raise AnswerInvalid(
            f"The answer is neither JSON nor an event stream{_of_type(kind)}; it begins: "
            f"{_quote(start)}"
        )
    if parts.error is not None:
        raise AnswerInvalid(f"The server answered with an error: {error_text(parts.error)}")
    if not parts.choices:
        raise AnswerInvalid(f"The answer holds no choices; it begins: {_quote(start)}")
    return parts


def in_progress(raw: RawAnswer) -> bool:
    """Whether a stored answer is still being made, as far as the server says so."""
    if raw.status == 202:
        return True
    try:
        document = json.loads(raw.body, strict=False)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    if document.get("status") in {"queued", "in_progress"}:
        return True
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(choice, dict) and choice.get("finish_reason", "said nothing") is None


def is_answer(raw: RawAnswer) -> bool:
    """Whether a stored response came to an end that is an answer, however useful."""
    try:
        document = json.loads(raw.body, strict=False)
    except (ValueError, RecursionError):
        return True  # whoever reads it will say what is wrong with it
    return not isinstance(document, dict) or document.get("status") not in GONE


def _events(body: bytes) -> Iterator[str]:
    for line in body.replace(b"\r", b"\n").split(b"\n"):
        data = _event_data(line)
        if data:
            yield data


def _document(body: bytes) -> dict[str, Any]:
    try:
        # strict=False: some servers send raw control characters inside strings.
        document = json.loads(body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalid(
            f"The answer is not complete JSON ({len(body)} bytes; {error}); "
            f"it ends: {_quote(body, end=True)}"
        ) from None
    if not isinstance(document, dict):
        raise AnswerInvalid(f"The answer is JSON, but not an object: {_quote(body)}")
    return document


def _chunk(data: str) -> Any:
    try:
        return json.loads(data, strict=False)
    except (ValueError, RecursionError) as error:
        raise AnswerInvalid(
            f"An event of the stream is not JSON ({error}): {data[:_SHOWN]!r}"
        ) from None


def error_text(error: dict[str, Any]) -> str:
    """Return the server's own words out of an ``error`` object."""
    message = error.get("message") or error.get("detail") or error.get("code") or error
    try:
        return storable(str(message)[:500])
    except (ValueError, RecursionError):  # a number or a nesting without measure
        return "an error that cannot be shown"


def _of_type(kind: str) -> str:
    return f" (content type {kind!r})" if kind else ""


def _quote(body: bytes, *, end: bool = False) -> str:
    shown = body[-_SHOWN:] if end else body[:_SHOWN]
    return repr(shown.decode("utf-8", "replace"))

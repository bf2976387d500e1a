"""Saves what running calls have said so far, about twice a second, all streams in one statement.

A courtesy to people and to the attempt that follows a crash: it must never fail a step, never slow
one down, and cost nothing while nobody streams.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ekiden import telemetry
from ekiden.core.records import Partial
from ekiden.errors import DatabaseUnreachable
from ekiden.providers.protocol import storable
from ekiden.store.ledger import Call
from ekiden.store.partials import Partials

EVERY = 0.5  # seconds between two writes
FLUSH = 2.0  # seconds that the end of a broken call waits for its last text to be saved
MOST = 1_000_000  # characters saved of one call; an answer may be longer
_BATCH = 500  # calls in one statement
_MAX_PAUSE = 5.0  # seconds between two tries while the database is away


class PartialStream:
    """The text of one running call on its way to the database."""

    def __init__(self, call: Call, writer: PartialWriter) -> None:
        self._call = call
        self._writer = writer
        self._pieces: list[str] = []
        self._half = ""  # the first half of a character whose second half is still to come
        self._room = MOST
        self._chunk: Partial | None = None  # sent, perhaps in vain: sent again as it is
        self._seq = 0
        self.saved = asyncio.Event()  # nothing of what was heard is left to save

    @property
    def begun(self) -> bool:
        """Whether any of its text was sent to the database."""
        return self._seq > 0

    @property
    def pending(self) -> bool:
        """Whether there is text that is not saved."""
        return bool(self._pieces) or self._chunk is not None

    def hear(self, piece: str) -> None:
        """Take the next piece of the answer's text."""
        piece = piece[: self._room]
        if piece:
            self._room -= len(piece)
            self._pieces.append(piece)
            self.saved.clear()
            self._writer.wake(self)

    def next_chunk(self) -> Partial | None:
        """Return what is to be saved now; the same again until it is ``confirmed``."""
        if self._chunk is None:
            text = self._half + "".join(self._pieces)
            self._pieces.clear()
            # Half a character is never saved: with its other half it may be another one.
            self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
            text = storable(text.removesuffix(self._half))
            if text:
                self._seq += 1
                self._chunk = Partial(
                    session_id=self._call.session_id,
                    task_id=self._call.task_id,
                    attempt=self._call.attempt,
                    call=self._call.number,
                    seq=self._seq,
                    text=text,
                )
        return self._chunk

    def confirmed(self) -> None:
        """The chunk is in the database."""
        self._chunk = None
        if not self.pending:
            self.saved.set()

    def give_up(self) -> None:
        """Save nothing more of this call: text after a gap would be no prefix of the answer."""
        self._pieces.clear()
        self._chunk = None
        self._room = 0
        self.saved.set()


class PartialWriter:
    """Appends the text of all streams of a worker, together."""

    def __init__(self, partials: Partials, *, every: float = EVERY) -> None:
        self._partials = partials
        self._every = every
        self._waiting: dict[PartialStream, None] = {}  # with text to save, oldest first
        self._text = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="partials")

    def open(self, call: Call) -> PartialStream:
        """Return where the text of a call goes."""
        return PartialStream(call, self)

    def wake(self, stream: PartialStream) -> None:
        """There is text to save."""
        self._waiting[stream] = None
        self._text.set()

    def drop(self, stream: PartialStream) -> None:
        """The answer is whole: a call that was too quick to be seen leaves nothing."""
        if not stream.begun:
            self._waiting.pop(stream, None)

    async def flush(self, stream: PartialStream) -> None:
        """Save the last text of a call that broke off, as far as that is possible. Never raises."""
        if stream.pending and self._task is not None and not self._task.done():
            self._urgent.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH):
                    await stream.saved.wait()

    async def close(self) -> None:
        """Write what is left, if the database takes it, then stop."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        while self._waiting and await self._write():
            pass

    def abort(self) -> None:
        """Stop at once."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        pause = self._every
        while True:
            await self._text.wait()  # idle: no timer, no query
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._urgent.wait()
            self._urgent.clear()
            self._text.clear()
            well = await self._write()
            pause = self._every if well else min(pause * 2, _MAX_PAUSE)
            if self._waiting:
                self._text.set()

    async def _write(self) -> bool:
        """Save what has come; whether the database took it."""
        chunks: dict[PartialStream, Partial] = {}
        for stream in list(self._waiting)[:_BATCH]:
            if (chunk := stream.next_chunk()) is not None:
                chunks[stream] = chunk
            else:
                del self._waiting[stream]
                stream.saved.set()
        if not chunks:
            return True
        try:
            await self._partials.append(list(chunks.values()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the steps go on
            self._tell(error)
            if not isinstance(error, DatabaseUnreachable):
                for stream in chunks:
                    stream.give_up()
                    self._waiting.pop(stream, None)
            return False
        self._failing = False
        for stream in chunks:
            stream.confirmed()
            # To the end of the line, so that the oldest is always next.
            self._waiting.pop(stream, None)
            if stream.pending:
                self._waiting[stream] = None
        return True

    def _tell(self, error: Exception) -> None:
        """Say it once, not twice a second."""
        if not self._failing:
            self._failing = True
            telemetry.emit("partials_unsaved", error=str(error))

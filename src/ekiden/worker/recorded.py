"""Answers a step from what was recorded: no network, no database, nothing written.

A step that runs on these parts is told and cut off exactly as its last attempt was, as far as it
asks the same. Where it asks something else, that is noted; then either somebody else answers, or
the step ends there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ekiden.core.model import CallOutcome
from ekiden.core.recording import RecordedCall
from ekiden.errors import CannotHeal, ModelUnavailable, SearchError
from ekiden.providers.protocol import Answer, ModelRequest, Provider, RawAnswer, Usage
from ekiden.search.protocol import SearchEngine, Source
from ekiden.store.ledger import Call, PaidAnswer
from ekiden.worker.ledger_writer import LedgerWriter
from ekiden.worker.question import canonical_ask, canonical_search

T = TypeVar("T")

# Reads a raw answer of a provider and a model, by their names.
Reader = Callable[[str, str, RawAnswer], Answer]

_SOURCES = TypeAdapter(list[Source])


class WouldAsk(CannotHeal):
    """Today's code asks something that was not asked then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has no recorded answer, beside the recorded one that is nearest to it."""

    kind: str
    request: bytes
    instead_of: bytes | None


class Answers:
    """The recorded calls of one task, handed out as its last attempt had them.

    Args:
        calls: all of the task's.
        attempt: the number of the last attempt.
    """

    def __init__(self, calls: Sequence[RecordedCall], attempt: int) -> None:
        earlier = [
            c for c in calls if c.attempt < attempt and c.outcome == CallOutcome.ANSWERED
        ]  # taken from the ledger before anything was paid again
        own = [c for c in calls if c.attempt == attempt]
        shown = [
            c for c in calls if c.attempt < attempt and c.outcome == CallOutcome.INVALID
        ]  # what earlier attempts repaired; the last one went on from there where it asked no more
        self._left: list[RecordedCall] = [
            *sorted(earlier, key=lambda c: c.id),
            *sorted(own, key=lambda c: (c.number, c.answer is None)),
            *sorted(shown, key=lambda c: -c.id),
        ]
        self._own = {c.id for c in own}
        self.taken = 0
        self.differing: list[Asked] = []

    @property
    def unasked(self) -> list[RecordedCall]:
        """What the last attempt asked and today's code did not, so far."""
        return [c for c in self._left if c.id in self._own]

    def take(self, kind: str, request: bytes) -> RecordedCall | None:
        """Return the next recorded call with this request; None is noted as differing."""
        wanted = hashlib.sha256(request).hexdigest()
        for call in self._left:
            if call.kind == kind and call.request_hash == wanted:
                self._left.remove(call)
                # A call that broke off and was fetched later has two rows.
                self._left = [
                    c for c in self._left if (c.attempt, c.number) != (call.attempt, call.number)
                ]
                self.taken += 1
                return call
        nearest = next((c.request for c in self._left if c.kind == kind), None)
        self.differing.append(Asked(kind=kind, request=request, instead_of=nearest))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _From(RawAnswer):
    """A raw answer that knows whose it is."""

    provider: str
    model: str


class RecordedProvider:
    """A model that says what it said.

    Args:
        answers: what it said.
        read: understands the bytes.
        otherwise: answers what was not asked then; None: the step ends there.
    """

    def __init__(self, answers: Answers, read: Reader, otherwise: Provider | None = None) -> None:
        self._answers = answers
        self._read = read
        self._otherwise = otherwise

    @property
    def name(self) -> str:
        """Whoever would be asked."""
        return self._otherwise.name if self._otherwise else "recorded"

    @property
    def model(self) -> str:
        """Its model."""
        return self._otherwise.model if self._otherwise else "recorded"

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Return what was answered then.

        Raises:
            ModelUnavailable: nothing came then either.
            WouldAsk: it was not asked then.
        """
        call = self._answers.take("ask", canonical_ask(request))
        if call is None:
            if self._otherwise is None:
                raise WouldAsk("Today's code asks the model something else than was recorded.")
            return await self._otherwise.send(request, on_text=on_text, on_usage=on_usage)
        if call.answer is None:
            raise ModelUnavailable(call.error or "No answer came.")
        return _From(
            body=call.answer,
            status=call.http_status or 200,
            content_type=call.content_type or "",
            provider=call.provider,
            model=call.model,
        )

    def read(self, raw: RawAnswer) -> Answer:
        """Understand an answer, recorded or not."""
        if isinstance(raw, _From):
            return self._read(raw.provider, raw.model, raw)
        assert self._otherwise is not None  # it sent it
        return self._otherwise.read(raw)

    async def close(self) -> None:
        """Nothing is open here."""


class RecordedSearch:
    """A source that finds what it found; see `RecordedProvider`."""

    def __init__(self, answers: Answers, otherwise: SearchEngine | None = None) -> None:
        self._answers = answers
        self._otherwise = otherwise

    @property
    def name(self) -> str:
        """What would be searched."""
        return self._otherwise.name if self._otherwise else "recorded"

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        """Return what was found then.

        Raises:
            SearchError: nothing could be found then either.
            WouldAsk: it was not searched then.
        """
        asked = canonical_search(query, limit=limit, language=language)
        call = self._answers.take("search", asked)
        if call is None:
            if self._otherwise is None:
                raise WouldAsk("Today's code searches for something else than was recorded.")
            return await self._otherwise.search(query, limit=limit, language=language)
        if call.answer is None:
            raise SearchError(call.error or "The source could not be asked.")
        return _SOURCES.validate_json(call.answer)


class _Unheard:
    """The partial text of calls, which nobody saves here."""

    def open(self, _call: Call) -> _Unheard:
        return self

    def hear(self, _piece: str) -> None:
        pass

    def drop(self, _stream: object) -> None:
        pass

    async def flush(self, _stream: object) -> None:
        pass


class Unwritten(LedgerWriter):
    """A ledger that nothing is written to, and nothing is looked up in."""

    def __init__(self) -> None:
        self.partials: Any = _Unheard()

    def see_through(self, making: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what makes a call."""
        return asyncio.create_task(making)

    async def begin(self, call: Call) -> bool:
        """Let every call begin; nothing is spent."""
        return False

    async def append(self, call: Call) -> None:
        """Forget a call."""

    async def settle(self, call: Call) -> None:
        """Forget what became of it."""

    async def next_paid(self, call: Call, taken: Sequence[int]) -> None:
        """Know of no answer: `Answers` hands them out."""

    async def useless(self, call: Call) -> list[PaidAnswer]:
        """Know of no answer."""
        return []

    async def next_started(self, call: Call, tried: Sequence[str]) -> None:
        """Know of no answer."""

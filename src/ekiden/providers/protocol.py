"""What a provider is: something that sends one request and gives back the raw answer.

Sending and reading are two steps on purpose. The raw bytes go to the ledger between them, so an
answer that was paid for is stored before anything can choke on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str  # "system", "user" or "assistant"
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One request to a language model, independent of who answers it."""

    messages: tuple[Message, ...]
    schema: dict[str, Any] | None = None  # JSON schema of the answer; None asks for plain text
    schema_name: str = "answer"
    max_tokens: int = 1024
    temperature: float = 0.7
    seed: int | None = None  # differs by attempt, so that a retry is not the same dice
    said: str = ""  # how an answer to this began before it was cut: the rest is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came back over the wire, before anyone tried to understand it."""

    # Exactly as received, a stream's events concatenated; where it goes on from what was said
    # before, an event of ours that says so comes first (`parts.said_event`).
    body: bytes
    status: int  # HTTP status
    content_type: str = ""
    # Of this one exchange, so not part of what makes two answers equal:
    request_id: str | None = field(default=None, compare=False)  # as its support asks for it
    first_token: float | None = field(default=None, compare=False)  # seconds to the first text
    took: float | None = field(default=None, compare=False)  # seconds, without waiting for a turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them. None is unknown, never zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None  # None: no price is known for this model
    price_version: str | None = None  # where the price is from; None when there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A page that the provider says it used for its answer."""

    url: str
    title: str = ""
    published: str | None = None  # ISO date, when the provider says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A raw answer, read."""

    text: str
    finish_reason: str | None  # "stop", "length", ...; "length" means the text was cut
    model: str  # the model that answered, as it names itself
    usage: Usage = field(default_factory=Usage)
    citations: tuple[Citation, ...] = ()  # of a provider that searches, in its order
    declined: str | None = None  # how the model declined to answer, if it did; paid for as well


class Provider(Protocol):
    """Somewhere that language models answer.

    Implementations never retry: retries are the engine's, uniform and counted.
    """

    @property
    def name(self) -> str:
        """Short name stored with each call, e.g. ``openai`` or ``embedded``."""
        ...

    @property
    def model(self) -> str:
        """The model asked, e.g. ``gpt-5`` or ``smollm2``."""
        ...

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request and return the raw answer.

        Args:
            request: what to ask.
            on_text: hears a stream's pieces of text as they come.
            on_id: hears, at the first event, the id under which the answer can be fetched again,
                or by which a cut one is known, and is awaited before more is read;
                never called by a provider that has no use for it.
            on_usage: hears what the provider said of its usage before a stream that broke off.

        Raises:
            ModelUnavailable: nothing (or only a part) came back; a retry may help. Its
                ``http_status`` says whether it may be paid all the same.
            ModelBusy: 429 or 503 with Retry-After.
            ModelRefused: 4xx that a retry does not heal.
            NotNow: it is not to be asked yet; nothing was sent.
        """
        ...

    def read(self, raw: RawAnswer) -> Answer:
        """Understand a raw answer, fresh or from the ledger.

        Raises:
            AnswerInvalid: the bytes are not what this provider's API promises.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


@runtime_checkable
class Priced(Protocol):
    """What a provider can do as well when it knows beforehand what a call costs at most."""

    def most_it_costs(self, input_chars: int, max_tokens: int) -> Decimal | None:
        """Return an upper bound of what one call costs, in US dollars; None when it is not known.

        Args:
            input_chars: characters of all that is sent: messages, and the schema as JSON.
            max_tokens: the most tokens that the answer may have.
        """
        ...


@runtime_checkable
class Thinks(Protocol):
    """What a provider can do as well when its answers may have more tokens than were asked for."""

    def most_tokens(self, max_tokens: int) -> int:
        """Return the most tokens that an answer may have, with what the model may think.

        Args:
            max_tokens: the most that were asked for.
        """
        ...


@runtime_checkable
class KeepsAnswers(Protocol):
    """What a provider can do as well when answers stay with it under an id.

    An error of its ``send`` has ``kept`` set when the answer that broke off can be fetched.
    """

    async def fetch(self, answer_id: str) -> RawAnswer | None:
        """Return an answer that was asked for before; None: it is not there, ask again.

        Waits a while for an answer that is still being made.

        Raises:
            StillAnswering: it takes longer; says when to look again.
            ModelUnavailable: nobody knows whether it is there; a retry may help.
            ModelBusy: 429 or 503.
        """
        ...


@runtime_checkable
class GoesOn(Protocol):
    """What a provider can do as well when it can be asked for the rest of a cut answer."""

    def goes_on(self, request: ModelRequest) -> bool:
        """Whether the rest of an answer to this request can be asked for (``request.said``)."""
        ...


@runtime_checkable
class Withdraws(Protocol):
    """What a provider can do as well when an answer goes on being made while nobody listens."""

    async def withdraw(self, answer_id: str) -> None:
        """Let it stop making an answer that nobody wants any more; one that is over is no error.

        Raises:
            ModelError: nobody knows whether it stopped.
        """
        ...


def storable(text: str) -> str:
    """Return the text with what PostgreSQL cannot store (NUL, lone surrogates) as U+FFFD.

    Halves of one character that came in two pieces are joined first. The raw bytes in the ledger
    keep what was really sent.
    """
    if text.isascii() and "\0" not in text:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", "\ufffd")

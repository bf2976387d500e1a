"""The connection to a model server, whatever it speaks: send, collect every byte, name what broke.

The official SDKs of OpenAI and Anthropic are built alike, down to the names of their exceptions;
what differs between them is in `openai_compatible` and `anthropic_messages`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ekiden.errors import AnswerInvalid, ModelError, ModelUnavailable
from ekiden.providers.addresses import checked_url, is_loopback
from ekiden.providers.failures import failure, failure_in_stream, redact
from ekiden.providers.manners import Manners, Turn
from ekiden.providers.parts import Parts
from ekiden.providers.prices import estimate, usage_of
from ekiden.providers.protocol import Answer, ModelRequest, RawAnswer, Usage, storable
from ekiden.providers.reading import StreamListener, read_body

if TYPE_CHECKING:
    import httpx2

_CHARACTERS_A_TOKEN = 3  # about: what a rate limit will count is only guessed before it is told
_REQUEST_IDS = ("x-request-id", "request-id")
_LONGEST_ID = 200


class HttpModel(ABC):
    """A provider behind ``base_url``.

    Args:
        base_url: where the server is.
        model: the model to ask for.
        api_key: sent as the server wants it; None sends no key at all.
        name: the short name stored with each call.
        silence: seconds without a byte after which the server counts as gone. Generous, because
            reasoning models think in silence; the engine bounds the whole step.
        max_bytes: an answer longer than this is given up.
        cost_usd: what a call costs, for servers whose price is known to be fixed (0 at home).
        manners: how to behave towards it; its own when None.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None,
        name: str,
        silence: float = 300.0,
        max_bytes: int = 64 * 1024 * 1024,
        cost_usd: float | None = None,
        manners: Manners | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._model = model
        self._name = name
        self._key = (api_key or "").strip() or None
        self._silence = silence
        self._max_bytes = max_bytes
        self._cost_usd = cost_usd
        self._manners = manners or Manners(f"{name}:{model}")
        self._client: Any = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """Short name stored with each call."""
        return self._name

    @property
    def model(self) -> str:
        """The model asked."""
        return self._model

    def read(self, raw: RawAnswer) -> Answer:
        """Understand a raw answer; see `Provider.read`.

        NUL and lone surrogates in the text become U+FFFD: no database stores them as text.

        Raises:
            AnswerInvalid: the body is no answer of a model server, streamed or plain.
        """
        parts = read_body(raw.body, raw.content_type)
        model = parts.model or self._model
        return Answer(
            text=storable("".join(parts.text)),
            declined=parts.declined,
            finish_reason=parts.finish_reason,
            model=model,
            usage=self._usage(parts, model),
            citations=parts.citations,
        )

    def most_it_costs(self, input_chars: int, max_tokens: int) -> Decimal | None:
        """Return an upper bound of what one call costs; see `Priced.most_it_costs`."""
        if self._cost_usd is not None:
            return Decimal(str(self._cost_usd))
        return estimate(
            f"{self._name}:{self._model}", input_chars, max_tokens, base_url=self.base_url
        )

    async def close(self) -> None:
        """Close the connections. The provider may be used again; it opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # -- what the two SDKs do differently -------------------------------------------------------

    @abstractmethod
    def _sdk(self) -> tuple[ModuleType, type[Exception]]:
        """Return the SDK and its base exception. Imported late: half a second."""

    @abstractmethod
    def _open(self) -> Any:
        """Return a new client of the SDK."""

    # -- asking ---------------------------------------------------------------------------------

    async def _ask(
        self,
        request: ModelRequest,
        begin: Callable[[Any], AbstractAsyncContextManager[Any]],
        listener: StreamListener,
        *,
        on_text: Callable[[str], None] | None,
        on_usage: Callable[[Usage], None] | None,
    ) -> RawAnswer:
        """Send with ``begin``, given the client, and collect what comes."""
        client = await self._connected()
        async with self._manners.turn(_tokens(request)) as turn:
            status = 0
            try:
                begun = monotonic()
                async with self._explained(turn), begin(client) as response:
                    turn.heard(response.headers)
                    status = response.status_code
                    raw = await self._collect(response, listener, begun)
            except BaseException as error:  # cancelled as well
                if isinstance(error, ModelError) and error.http_status is not None:
                    error.http_status = status
                parts = listener.parts
                if on_usage is not None and parts.usage:
                    on_usage(self._usage(parts, parts.model or self._model))
                raise
        if on_text is not None and not _is_stream(raw.content_type):
            self._tell_whole(raw, on_text)
        return raw

    @asynccontextmanager
    async def _explained(
        self, turn: Turn | None = None, *, silence: float | None = None
    ) -> AsyncIterator[None]:
        """Turn what goes wrong with a request into one of our errors."""
        import httpx2  # noqa: PLC0415  -- late, like the SDKs

        sdk, base_error = self._sdk()
        try:
            yield
        except sdk.APIStatusError as error:
            if turn is not None:
                turn.heard(error.response.headers)
            raise failure(
                error.status_code,
                error.response.headers,
                error.response.content,
                url=self.base_url,
                key=self._key,
            ) from None
        except (sdk.APIConnectionError, httpx2.HTTPError) as error:
            raise self._connection_trouble(error, silence or self._silence) from error
        except base_error as error:
            raise ModelUnavailable(
                f"{self.base_url} could not be asked: {redact(str(error), self._key)}"
            ) from error

    async def _collect(self, response: Any, listener: StreamListener, begun: float) -> RawAnswer:
        """Read an answer to its end, whatever it is."""
        content_type = response.headers.get("content-type", "")
        streamed = _is_stream(content_type)
        body = bytearray()
        first_token: float | None = None
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise AnswerInvalid(
                    f"The answer of {self.base_url} is longer than {self._max_bytes:,} bytes; "
                    "the rest was not read.",
                    http_status=response.status_code,
                )
            if streamed:
                listener.feed(chunk)
                await listener.noted()
                if first_token is None and any(listener.parts.text):
                    first_token = monotonic() - begun
        if streamed:
            self._refuse_cut(listener.close(), response.status_code, len(body))
        told = (response.headers.get(name) for name in _REQUEST_IDS)
        return RawAnswer(
            body=bytes(body),
            status=response.status_code,
            content_type=content_type,
            request_id=next((storable(id_)[:_LONGEST_ID] for id_ in told if id_), None),
            first_token=first_token,
            took=monotonic() - begun,
        )

    def _refuse_cut(self, parts: Parts, status: int, size: int) -> None:
        if parts.error is not None:
            raise failure_in_stream(parts.error, url=self.base_url, key=self._key)
        if not parts.complete:
            raise ModelUnavailable(
                f"The stream from {self.base_url} was cut after {size:,} bytes, before its end.",
                http_status=status,
            )

    def _tell_whole(self, raw: RawAnswer, on_text: Callable[[str], None]) -> None:
        """Let ``on_text`` hear a server that does not stream: all at once, at the end."""
        try:
            read = self.read(raw)
        except AnswerInvalid:
            return  # not this method's to judge: the bytes go to the ledger first
        if read.text and read.declined is None:
            on_text(read.text)

    def _usage(self, parts: Parts, model: str) -> Usage:
        return usage_of(
            parts.usage,
            name=self._name,
            model=model,
            base_url=self.base_url,
            cost_usd=self._cost_usd,
        )

    def _connection_trouble(self, error: Exception, silence: float) -> ModelUnavailable:
        import httpx2  # noqa: PLC0415

        # The SDK wraps what happens before the first byte; after it, httpx speaks for itself.
        cause = error if isinstance(error, httpx2.HTTPError) else (error.__cause__ or error)
        what = redact(str(cause), self._key) or type(cause).__name__
        unsent = (
            httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
            | httpx2.LocalProtocolError | httpx2.UnsupportedProtocol
        )  # fmt: skip
        if isinstance(cause, unsent):
            return ModelUnavailable(f"{self.base_url} cannot be reached: {what}.")
        if isinstance(cause, httpx2.TimeoutException):
            trouble = f"{self.base_url} was silent for {silence:g} s."
        else:
            trouble = f"The connection to {self.base_url} broke: {what}."
        return ModelUnavailable(trouble, http_status=0)

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                # In a thread: the first import takes half a second, and the certificates some
                # more; the event loop has leases to renew.
                self._client = await asyncio.to_thread(self._open)
            return self._client

    def _http(self) -> httpx2.AsyncClient:
        """Return what the SDK's client sends with."""
        import httpx2  # noqa: PLC0415

        local = is_loopback(self.base_url)
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._silence, connect=10.0),
            # A local server is asked directly, also where a proxy is set for the rest; and on
            # a new connection each time, which costs nothing there and cannot have gone stale.
            trust_env=not local,
            limits=httpx2.Limits(
                max_connections=1000, max_keepalive_connections=0 if local else 100
            ),
            follow_redirects=False,  # keys and prompts go where the settings say, only there
        )


def _is_stream(content_type: str) -> bool:
    return content_type.startswith("text/event-stream")


def _tokens(request: ModelRequest) -> int:
    """Return about how many tokens a rate limit will count for this."""
    characters = sum(len(message.content) for message in request.messages)
    return characters // _CHARACTERS_A_TOKEN + request.max_tokens

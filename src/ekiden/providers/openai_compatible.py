"""Ask any server that speaks the OpenAI chat protocol.

OpenAI, Perplexity, Gemini's and Anthropic's compatible endpoints, Ollama, vLLM, LM Studio, and
the embedded model all come through here; what they want spelled differently is in `dialect`.
This module knows the connection: send, collect every byte, and name what went wrong.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ekiden.errors import AnswerInvalid, ModelRefused, ModelUnavailable, SettingsError
from ekiden.providers.dialect import Dialect, dialect_for, spell
from ekiden.providers.failures import failure, failure_in_stream, redact, retry_after
from ekiden.providers.protocol import Answer, ModelRequest, RawAnswer, Usage, storable
from ekiden.providers.reading import Parts, StreamListener, in_progress, read_body

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
_HIGHEST = 2**31 - 1  # tokens or dollars of one call; what a server says beyond that is not known

_FIRST_LOOK = 1.0  # seconds until an answer that is still being made is asked for again,
_LAST_LOOK = 15.0  # doubled each time up to this


class OpenAICompatible:
    """A provider behind ``base_url``.

    Args:
        base_url: where the server's ``/chat/completions`` lives, without that ending.
        model: the model to ask for.
        api_key: sent as a bearer token; None sends no Authorization header at all.
        name: the short name stored with each call.
        dialect: how this server wants things spelled; None looks it up by address and model.
        silence: seconds without a byte after which the server counts as gone. Generous, because
            reasoning models think in silence; the engine bounds the whole step.
        max_bytes: an answer longer than this is given up.
        cost_usd: what a call costs, for servers whose price is known to be fixed (0 at home).
        store: ask the server to keep its answers, so that they can be fetched again by id.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        name: str = "openai",
        dialect: Dialect | None = None,
        silence: float = 300.0,
        max_bytes: int = 64 * 1024 * 1024,
        cost_usd: float | None = None,
        store: bool = False,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._model = model
        self._name = name
        self._key = (api_key or "").strip() or None
        self._dialect = dialect or dialect_for(self.base_url, model)
        self._silence = silence
        self._max_bytes = max_bytes
        self._cost_usd = cost_usd
        self._store = store
        self._client: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """Short name stored with each call."""
        return self._name

    @property
    def model(self) -> str:
        """The model asked."""
        return self._model

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`.

        Raises:
            ModelUnavailable: no connection, 5xx, silence, or a stream that was cut.
            ModelBusy: 429 or 503.
            ModelRefused: any other 4xx, or a redirect.
            AnswerInvalid: the answer is longer than ``max_bytes``.
        """
        body = spell(request, self._model, self._dialect)
        if self._store:
            body["store"] = True
        listener = StreamListener(on_text, on_id if self._store else None)
        client = await self._connected()
        try:
            async with (
                self._explained(),
                client.chat.completions.with_streaming_response.create(
                    model=body.pop("model"),
                    messages=cast("Any", body.pop("messages")),
                    extra_body=body,
                    extra_headers=self._headers(),
                ) as response,
            ):
                raw = await self._collect(response, listener)
        except BaseException:  # cancelled as well
            parts = listener.parts
            if on_usage is not None and parts.usage:
                on_usage(self._usage(parts, parts.model or self._model))
            raise
        if on_text is not None and not _is_stream(raw.content_type):
            self._tell_whole(raw, on_text)
        return raw

    async def fetch(self, answer_id: str) -> RawAnswer | None:
        """Return a stored answer; see `KeepsAnswers.fetch`.

        A refusal (404, but also 403 or 405) counts as "not there": nothing else would ever come.
        """
        client = await self._connected()
        pause = _FIRST_LOOK
        while True:
            try:
                async with (
                    self._explained(),
                    client.chat.completions.with_streaming_response.retrieve(
                        answer_id, extra_headers=self._headers()
                    ) as response,
                ):
                    raw = await self._collect(response, StreamListener(None))
                    wait = retry_after(response.headers)
            except ModelRefused:
                return None
            if not in_progress(raw):
                return raw
            await asyncio.sleep(wait or pause)
            pause = min(pause * 2, _LAST_LOOK)

    def read(self, raw: RawAnswer) -> Answer:
        """Understand a raw answer; see `Provider.read`.

        NUL and lone surrogates in the text become U+FFFD: no database stores them as text.

        Raises:
            AnswerInvalid: the body is not a chat completion, streamed or plain.
        """
        parts = read_body(raw.body, raw.content_type)
        model = parts.model or self._model
        return Answer(
            text=storable("".join(parts.text)),
            finish_reason=parts.finish_reason,
            model=model,
            usage=self._usage(parts, model),
        )

    async def models(self) -> list[str]:
        """Return the models the server lists, in its own order.

        Raises:
            ModelUnavailable: the server cannot be reached.
            ModelBusy: the server asked to come back later.
            ModelRefused: the server does not list models, or not to us.
            AnswerInvalid: what came back is not a list of models.
        """
        client = await self._connected()
        try:
            async with (
                self._explained(),
                client.models.with_streaming_response.list(
                    timeout=10.0, extra_headers=self._headers()
                ) as response,
            ):
                document = await response.json()
        except ValueError:
            document = None
        listed = model_ids(document)
        if listed is None:
            raise AnswerInvalid(f"{self.base_url}/models is not a list of models.")
        return listed

    async def close(self) -> None:
        """Close the connections. The provider may be used again; it opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Turn what goes wrong with a request into one of our errors."""
        import httpx2  # noqa: PLC0415  -- late, like openai: half a second
        import openai  # noqa: PLC0415

        try:
            yield
        except openai.APIStatusError as error:
            raise failure(
                error.status_code,
                error.response.headers,
                error.response.content,
                url=self.base_url,
                key=self._key,
            ) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            raise ModelUnavailable(self._connection_trouble(error)) from error
        except openai.OpenAIError as error:
            raise ModelUnavailable(
                f"{self.base_url} could not be asked: {redact(str(error), self._key)}"
            ) from error

    async def _collect(self, response: Any, listener: StreamListener) -> RawAnswer:
        """Read an answer to its end, whatever it is."""
        content_type = response.headers.get("content-type", "")
        streamed = _is_stream(content_type)
        body = bytearray()
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise AnswerInvalid(
                    f"The answer of {self.base_url} is longer than {self._max_bytes:,} bytes; "
                    "the rest was not read."
                )
            if streamed:
                listener.feed(chunk)
                await listener.noted()
        if streamed:
            self._refuse_cut(listener.close(), len(body))
        return RawAnswer(body=bytes(body), status=response.status_code, content_type=content_type)

    def _refuse_cut(self, parts: Parts, size: int) -> None:
        if parts.error is not None:
            raise failure_in_stream(parts.error, url=self.base_url, key=self._key)
        if not parts.complete:
            raise ModelUnavailable(
                f"The stream from {self.base_url} was cut after {size:,} bytes, before its end."
            )

    def _tell_whole(self, raw: RawAnswer, on_text: Callable[[str], None]) -> None:
        """Let ``on_text`` hear a server that does not stream: all at once, at the end."""
        try:
            text = self.read(raw).text
        except AnswerInvalid:
            return  # not this method's to judge: the bytes go to the ledger first
        if text:
            on_text(text)

    def _usage(self, parts: Parts, model: str) -> Usage:
        given = parts.usage
        spent, written = _count(given, "prompt_tokens"), _count(given, "completion_tokens")
        details = given.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
        cost = self._cost_usd
        if cost is None:
            cost = _stated_cost(given)
        if cost is None and spent is not None and written is not None:
            cost = price_usd(self.base_url, model, spent, written, cached or 0)
        return Usage(input_tokens=spent, output_tokens=written, cost_usd=cost)

    def _connection_trouble(self, error: Exception) -> str:
        import httpx2  # noqa: PLC0415

        # The SDK wraps what happens before the first byte; after it, httpx speaks for itself.
        cause = error if isinstance(error, httpx2.HTTPError) else (error.__cause__ or error)
        what = redact(str(cause), self._key) or type(cause).__name__
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            return f"{self.base_url} cannot be reached: {what}."
        if isinstance(cause, httpx2.TimeoutException):
            return f"{self.base_url} was silent for {self._silence:g} s."
        return f"The connection to {self.base_url} broke: {what}."

    def _headers(self) -> dict[str, Any]:
        """Return what keeps the SDK from sending headers that are not for this server."""
        from openai import Omit  # noqa: PLC0415

        omitted: dict[str, Any] = {}
        if self.base_url != OPENAI_URL:  # the SDK reads them from the environment
            omitted |= {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if self._key is None:
            omitted["Authorization"] = Omit()
        return omitted

    async def _connected(self) -> AsyncOpenAI:
        async with self._opening:
            if self._client is None:
                # In a thread: the first import takes half a second, and the certificates some
                # more; the event loop has leases to renew.
                self._client = await asyncio.to_thread(self._open)
            return self._client

    def _open(self) -> AsyncOpenAI:
        import httpx2  # noqa: PLC0415
        from openai import AsyncOpenAI  # noqa: PLC0415

        local = is_loopback(self.base_url)
        return AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # the SDK insists on one; _headers keeps it from leaving
            max_retries=0,  # retries are the engine's
            http_client=httpx2.AsyncClient(
                timeout=httpx2.Timeout(self._silence, connect=10.0),
                # A local server is asked directly, also where a proxy is set for the rest; and on
                # a new connection each time, which costs nothing there and cannot have gone stale.
                trust_env=not local,
                limits=httpx2.Limits(
                    max_connections=1000, max_keepalive_connections=0 if local else 100
                ),
                follow_redirects=False,  # keys and prompts go where the settings say, only there
            ),
        )


def _is_stream(content_type: str) -> bool:
    return content_type.startswith("text/event-stream")


def checked_url(url: str) -> str:
    """Return the base URL without its trailing slash.

    Raises:
        SettingsError: it is not a plain http(s) address.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise SettingsError("The base URL of a model server is not a URL.") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not quoted: it may hold a password.
        raise SettingsError(
            "The base URL of a model server may not hold a user, a password, a query or a "
            "fragment; give the key in its own variable."
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_fine:
        raise SettingsError(
            f"The base URL of a model server must look like https://host/v1, not {url!r}."
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the URL points at this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def model_ids(document: Any) -> list[str] | None:
    """Return the ids in an answer of ``/models``; None if it is no such answer."""
    listed = document.get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return None
    ids = (item.get("id") for item in listed if isinstance(item, dict))
    return [name for name in ids if isinstance(name, str) and name]


def price_usd(
    base_url: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0
) -> float | None:
    """Return what the tokens cost by the public price list; None if the model is not on it."""
    from genai_prices import Usage as Tokens  # noqa: PLC0415  -- late: a long table
    from genai_prices import calc_price  # noqa: PLC0415

    tokens = Tokens(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached_tokens
    )
    try:
        return float(calc_price(tokens, model, provider_api_url=base_url).total_price)
    except (LookupError, ValueError):
        return None


def _stated_cost(usage: dict[str, Any]) -> float | None:
    """Return the cost the server itself states: a number, or Perplexity's object."""
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    return float(cost) if cost is not None and _measured(cost) else None


def _count(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) and _measured(value) else None


def _measured(value: Any) -> bool:
    """Whether it is a number that can be meant: JSON brings Infinity and 4,000 digits as well."""
    return isinstance(value, int | float) and value is not True and 0 <= value <= _HIGHEST

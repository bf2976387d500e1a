"""Ask any server that speaks the OpenAI chat protocol.

OpenAI, Perplexity, Gemini's compatible endpoint, Ollama, vLLM, LM Studio, and the embedded model
all come through here; what they want spelled differently is in `dialect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic
from types import ModuleType
from typing import Any, cast

from ekiden.errors import (
    AnswerInvalid,
    ModelBusy,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    NotNow,
    StillAnswering,
)
from ekiden.providers.dialect import Dialect, dialect_for, most_tokens, spell
from ekiden.providers.failures import retry_after
from ekiden.providers.http_model import HttpModel
from ekiden.providers.manners import Manners
from ekiden.providers.protocol import ModelRequest, RawAnswer, Usage
from ekiden.providers.reading import StreamListener, in_progress, is_answer

OPENAI_URL = "https://api.openai.com/v1"

_RESPONSE = "resp_"  # how the ids of the Responses API begin
_FIRST_LOOK = 1.0  # seconds until an answer that is still being made is asked for again,
_LAST_LOOK = 15.0  # doubled each time up to this;
_LONGEST_WAIT = 900.0  # whatever a server asks for: a task that is told to wait long is given up;
_IN_PLACE = 60.0  # and when it takes longer, the step gives its place to another meanwhile
_SILENCE = 30.0  # seconds without a byte after which a look is given up: nobody thinks meanwhile


class OpenAICompatible(HttpModel):
    """A provider behind ``base_url``; see `HttpModel`.

    Args:
        base_url: where the server's ``/chat/completions`` lives, without that ending.
        model: the model to ask for.
        api_key: sent as a bearer token; None sends no Authorization header at all.
        name: the short name stored with each call.
        dialect: how this server wants things spelled; None looks it up by name and address.
        store: ask the server to keep its answers, so that they can be fetched again by id.
        silence: see `HttpModel`, as are the others.
        max_bytes: see `HttpModel`.
        cost_usd: see `HttpModel`.
        manners: see `HttpModel`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        name: str = "openai",
        dialect: Dialect | None = None,
        store: bool = False,
        silence: float = 300.0,
        max_bytes: int = 64 * 1024 * 1024,
        cost_usd: float | None = None,
        manners: Manners | None = None,
    ) -> None:
        super().__init__(
            base_url=base_url,
            model=model,
            api_key=api_key,
            name=name,
            silence=silence,
            max_bytes=max_bytes,
            cost_usd=cost_usd,
            manners=manners,
        )
        self._dialect = dialect or dialect_for(name, self.base_url, model)
        self._store = store

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
            NotNow: it is not to be asked yet.
        """
        body = spell(request, self._model, self._dialect)
        if self._store:
            body["store"] = True

        def begin(client: Any) -> AbstractAsyncContextManager[Any]:
            return cast(
                "AbstractAsyncContextManager[Any]",
                client.chat.completions.with_streaming_response.create(
                    model=body.pop("model"),
                    messages=body.pop("messages"),
                    extra_body=body,
                    extra_headers=self._headers(),
                ),
            )

        named = False

        async def note(answer_id: str) -> None:
            nonlocal named
            named = True
            if on_id is not None:
                await on_id(answer_id)

        listener = StreamListener(on_text, note if self._store else None)
        try:
            return await self._ask(request, begin, listener, on_text=on_text, on_usage=on_usage)
        except ModelError as error:
            error.kept = named
            raise

    def most_tokens(self, max_tokens: int) -> int:
        """Return the most tokens that an answer may have; see `Thinks.most_tokens`."""
        return most_tokens(max_tokens, self._dialect)

    async def fetch(self, answer_id: str) -> RawAnswer | None:
        """Return a stored answer; see `KeepsAnswers.fetch`. One that failed is none.

        One of the Responses API is being made in the background, also where nobody can look: that
        is `StillAnswering`.
        """
        try:
            raw = await self._look_for(answer_id)
        except StillAnswering:
            raise
        except (ModelUnavailable, ModelBusy, NotNow) as error:
            if not answer_id.startswith(_RESPONSE):
                raise
            wait = max(error.retry_after or 0.0, _LAST_LOOK)
            raise _still_answering(error.message, wait) from error
        return raw if raw is not None and is_answer(raw) else None

    async def _look_for(self, answer_id: str) -> RawAnswer | None:
        """Return a stored answer, as it stands once it is over.

        A refusal (404, but also 403 or 405) counts as "not there": nothing else would ever come.
        """
        client = await self._connected()
        silence = min(self._silence, _SILENCE)
        begun = monotonic()
        pause = _FIRST_LOOK
        while True:
            try:
                async with (
                    self._manners.turn(),
                    self._explained(silence=silence),
                    self._retrieve(client, answer_id, silence) as response,
                ):
                    raw = await self._collect(response, StreamListener(None), monotonic())
                    wait = retry_after(response.headers) or pause
            except ModelRefused:
                return None
            if not in_progress(raw):
                return raw
            if monotonic() - begun + wait > _IN_PLACE:
                raise _still_answering(
                    f"{self.name}:{self.model} is still working on its answer.", wait
                )
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LAST_LOOK)

    def _retrieve(
        self, client: Any, answer_id: str, silence: float
    ) -> AbstractAsyncContextManager[Any]:
        """Begin to ask for a stored answer, of whichever API: its asker may have used the other."""
        kept = client.responses if answer_id.startswith(_RESPONSE) else client.chat.completions
        return cast(
            "AbstractAsyncContextManager[Any]",
            kept.with_streaming_response.retrieve(
                answer_id, timeout=silence, extra_headers=self._headers()
            ),
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

    def _sdk(self) -> tuple[ModuleType, type[Exception]]:
        import openai  # noqa: PLC0415  -- late: half a second

        return openai, openai.OpenAIError

    def _open(self) -> Any:
        from openai import AsyncOpenAI  # noqa: PLC0415

        return AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # the SDK insists on one; _headers keeps it from leaving
            max_retries=0,  # retries are the engine's
            http_client=self._http(),
        )

    def _headers(self) -> dict[str, Any]:
        """Return what keeps the SDK from sending headers that are not for this server."""
        from openai import Omit  # noqa: PLC0415

        omitted: dict[str, Any] = {}
        if self.base_url != OPENAI_URL:  # the SDK reads them from the environment
            omitted |= {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if self._key is None:
            omitted["Authorization"] = Omit()
        return omitted


def _still_answering(why: str, wait: float) -> StillAnswering:
    return StillAnswering(why, retry_after=min(wait, _LONGEST_WAIT))


def model_ids(document: Any) -> list[str] | None:
    """Return the ids in an answer of ``/models``; None if it is no such answer."""
    listed = document.get("data") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return None
    ids = (item.get("id") for item in listed if isinstance(item, dict))
    return [name for name in ids if isinstance(name, str) and name]

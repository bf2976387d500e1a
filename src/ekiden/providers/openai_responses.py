"""Ask OpenAI's Responses API in the background: the answer is made whether or not anyone listens.

https://developers.openai.com/api/docs/guides/background has the mode,
https://developers.openai.com/api/docs/guides/streaming-responses the events of the stream.

The answer has an id from the first event on. Where the stream is cut, or its worker dies, it is
fetched by that id; it is paid for once. ``store`` is set, because without it OpenAI forgets such an
answer about ten minutes after it is complete.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from time import monotonic
from typing import Any, cast

from ekiden.errors import AnswerInvalid, ModelBusy, ModelError, ModelRefused, ModelUnavailable
from ekiden.providers.dialect import Dialect, described_schema, most_tokens
from ekiden.providers.openai_compatible import OpenAICompatible
from ekiden.providers.protocol import ModelRequest, RawAnswer, Usage
from ekiden.providers.reading import StreamListener, in_progress

# Tokens that a model in the background may think on top of what one in the foreground may: it is
# chosen for questions that take minutes, and thinks as hard as it does by default.
_MORE_ROOM = 28_672
_FEWEST_TOKENS = 16  # that the API takes


class OpenAIResponses(OpenAICompatible):
    """A model of the Responses API, asked in the background; see `OpenAICompatible`."""

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`. An answer whose stream is cut is fetched.

        Raises:
            StillAnswering: it was asked, and takes longer than this wants to wait.
        """
        body = spell(request, self._model, self._dialect)
        begun = monotonic()
        named: list[str] = []
        heard = 0

        async def note(answer_id: str) -> None:
            named.append(answer_id)
            if on_id is not None:
                await on_id(answer_id)

        def hear(piece: str) -> None:
            nonlocal heard
            heard += len(piece)
            if on_text is not None:
                on_text(piece)

        def begin(client: Any) -> AbstractAsyncContextManager[Any]:
            return cast(
                "AbstractAsyncContextManager[Any]",
                client.responses.with_streaming_response.create(
                    model=body.pop("model"),
                    input=body.pop("input"),
                    extra_body=body,
                    extra_headers=self._headers(),
                ),
            )

        listener = StreamListener(hear, note)
        try:
            raw = await self._ask(request, begin, listener, on_text=hear, on_usage=on_usage)
        except (ModelUnavailable, ModelBusy) as error:
            cut: ModelError = error
        else:
            if not in_progress(raw):
                return raw
            # It does not stream: what came is the id, and not much else.
            listener.name(raw.body)
            await listener.noted()
            cut = ModelUnavailable(
                f"{self.base_url} lost the answer that it was making.", http_status=raw.status
            )
        fetched = await self.fetch(named[0]) if named else None
        if fetched is None:
            raise cut
        self._tell_rest(fetched, heard, on_text)
        return replace(fetched, took=monotonic() - begun)

    async def withdraw(self, answer_id: str) -> None:
        """Cancel a response; see `Withdraws.withdraw`."""
        client = await self._connected()
        try:
            async with (
                self._explained(),
                client.responses.with_streaming_response.cancel(
                    answer_id, extra_headers=self._headers()
                ) as response,
            ):
                await response.read()
        except ModelRefused:
            return  # it is over, or not there: nothing is being made any more

    def most_it_costs(self, input_chars: int, max_tokens: int) -> Decimal | None:
        """Return an upper bound of what one call costs; see `Priced.most_it_costs`."""
        return super().most_it_costs(input_chars, _tokens(max_tokens, self._dialect))

    def most_tokens(self, max_tokens: int) -> int:
        """Return the most tokens that an answer may have; see `Thinks.most_tokens`."""
        return _most(max_tokens, self._dialect)

    def _tell_rest(self, raw: RawAnswer, heard: int, on_text: Callable[[str], None] | None) -> None:
        """Let ``on_text`` hear what the stream did not bring."""
        if on_text is None:
            return
        try:
            rest = self.read(raw).text[heard:]
        except AnswerInvalid:
            return  # not this method's to judge: the bytes go to the ledger first
        if rest:
            on_text(rest)


def spell(request: ModelRequest, model: str, dialect: Dialect) -> dict[str, Any]:
    """Return the JSON body of ``POST /responses`` for a request.

    Without a seed, which the API does not have, and with the model's own effort to think.
    """
    body: dict[str, Any] = {
        "model": model,
        "input": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_output_tokens": _most(request.max_tokens, dialect),
        "background": True,
        "store": True,
        "stream": True,
    }
    if not dialect.reasoning:
        body["temperature"] = request.temperature
    if request.schema is not None:
        described = described_schema(request, dialect)
        body["text"] = {"format": {"type": "json_schema", **described}}
    return body


def _most(max_tokens: int, dialect: Dialect) -> int:
    return max(most_tokens(_tokens(max_tokens, dialect), dialect), _FEWEST_TOKENS)


def _tokens(max_tokens: int, dialect: Dialect) -> int:
    return max_tokens + (_MORE_ROOM if dialect.reasoning else 0)

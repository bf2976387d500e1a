"""Ask Anthropic's Messages API through its official SDK (``pip install 'ekiden[anthropic]'``).

https://platform.claude.com/docs/en/build-with-claude/streaming has the events of the stream,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs how a schema is given.
The API has no seed, and the SDK no temperature any more: neither is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any, cast

from ekiden.errors import NotSetUp
from ekiden.providers.dialect import has_free_keys, schema_in_words
from ekiden.providers.http_model import HttpModel
from ekiden.providers.installed import has_anthropic
from ekiden.providers.protocol import ModelRequest, RawAnswer, Usage
from ekiden.providers.reading import StreamListener


class AnthropicMessages(HttpModel):
    """A model of Anthropic's, or behind an address that speaks like it; see `HttpModel`.

    Raises:
        NotSetUp: the SDK is not installed.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if not has_anthropic():
            raise NotSetUp(
                "anthropic: models need Anthropic's SDK, which is not installed: "
                "pip install 'ekiden[anthropic]'"
            )

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,  # never heard: it keeps none
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`."""

        def begin(client: Any) -> AbstractAsyncContextManager[Any]:
            return cast(
                "AbstractAsyncContextManager[Any]",
                client.messages.with_streaming_response.create(**spell(request, self._model)),
            )

        listener = StreamListener(on_text)
        return await self._ask(request, begin, listener, on_text=on_text, on_usage=on_usage)

    def _sdk(self) -> tuple[ModuleType, type[Exception]]:
        import anthropic  # noqa: PLC0415  -- late: half a second

        return anthropic, anthropic.AnthropicError

    def _open(self) -> Any:
        from anthropic import AsyncAnthropic  # noqa: PLC0415

        return AsyncAnthropic(
            base_url=self.base_url,
            api_key=self._key or "none",  # given, so that no other credential is looked for
            max_retries=0,  # retries are the engine's
            http_client=self._http(),
        )


def spell(request: ModelRequest, model: str) -> dict[str, Any]:
    """Return the arguments of ``messages.create`` for a request."""
    system = [m.content for m in request.messages if m.role == "system"]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": [
            {"role": m.role, "content": m.content} for m in request.messages if m.role != "system"
        ],
        "stream": True,
    }
    if request.schema is not None:
        strict = _strict(request.schema)
        if strict is None:
            system.append(schema_in_words(request.schema))
        else:
            body["output_config"] = {"format": {"type": "json_schema", "schema": strict}}
    if system:
        body["system"] = "\n\n".join(system)
    return body


def _strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema as the API takes it; None when it can only be said in words."""
    from anthropic import transform_schema  # noqa: PLC0415

    if schema.get("type") != "object" or has_free_keys(schema):
        return None
    try:
        return transform_schema(schema)
    except (ValueError, TypeError, AssertionError):
        return None

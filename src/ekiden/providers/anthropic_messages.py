"""Ask Anthropic's Messages API through its official SDK (the extra ``anthropic``).

https://platform.claude.com/docs/en/build-with-claude/streaming has the events of the stream,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs how a schema is given.
The API has no seed, and the SDK no temperature any more: neither is sent.

The rest of a cut answer is asked for in one of two ways. Models up to 4.5 go on from a last turn of
their own
(https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/prefill-claudes-response);
it may not end in white space, and goes with no output format, so the schema is said in words. Later
models refuse that, and are told what they said and to continue, as
https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/claude-prompting-best-practices
has it; a schema would make them begin anew, so an answer in JSON is asked for once more from them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

from ekiden.errors import NotSetUp
from ekiden.providers.dialect import has_free_keys, schema_in_words
from ekiden.providers.http_model import HttpModel
from ekiden.providers.installed import has_anthropic
from ekiden.providers.parts import said_event
from ekiden.providers.protocol import ModelRequest, RawAnswer, Usage
from ekiden.providers.reading import StreamListener

# The models that go on from a last turn of their own; whatever is not among them does not.
_UP_TO_4_5 = re.compile(r"claude-(3.*|(opus|sonnet|haiku)-4(-[015])?(-\d{8})?)")
_GO_ON = """Your previous response was interrupted. It ended with:

<said>
{said}
</said>

Continue from where you left off. Write only what follows: it is put right behind that text."""


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
                "pip install '/path/to/ekiden[anthropic]', with the path of its checkout"
            )

    async def send(
        self,
        request: ModelRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        on_id: Callable[[str], Awaitable[None]] | None = None,
        on_usage: Callable[[Usage], None] | None = None,
    ) -> RawAnswer:
        """Send the request; see `Provider.send`."""
        said = request.said.rstrip()
        request = replace(request, said=said)

        def begin(client: Any) -> AbstractAsyncContextManager[Any]:
            return cast(
                "AbstractAsyncContextManager[Any]",
                client.messages.with_streaming_response.create(**spell(request, self._model)),
            )

        if said and on_text is not None:
            on_text(said)
        listener = StreamListener(on_text, on_id)
        rest = await self._ask(request, begin, listener, on_text=on_text, on_usage=on_usage)
        return _whole(said, rest) if said else rest

    def goes_on(self, request: ModelRequest) -> bool:
        """Whether the rest of a cut answer can be asked for; see `GoesOn.goes_on`."""
        return request.schema is None or _takes_prefix(self._model)

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
    if request.said and _takes_prefix(model):
        body["messages"].append({"role": "assistant", "content": request.said})
    elif request.said:
        told = _GO_ON.format(said=request.said)
        body["messages"].append({"role": "user", "content": told})
    if request.schema is not None:
        strict = None if request.said else _strict(request.schema)
        if strict is None:
            system.append(schema_in_words(request.schema))
        else:
            body["output_config"] = {"format": {"type": "json_schema", "schema": strict}}
    if system:
        body["system"] = "\n\n".join(system)
    return body


def _takes_prefix(model: str) -> bool:
    return _UP_TO_4_5.fullmatch(model) is not None


def _whole(said: str, rest: RawAnswer) -> RawAnswer:
    """Return the rest of an answer with how it began before it."""
    body = rest.body
    if not rest.content_type.startswith("text/event-stream"):  # one document: as one event
        body = b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"
    return replace(rest, body=said_event(said) + body, content_type="text/event-stream")


def _strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema as the API takes it; None when it can only be said in words."""
    from anthropic import transform_schema  # noqa: PLC0415

    if schema.get("type") != "object" or has_free_keys(schema):
        return None
    try:
        return transform_schema(schema)
    except (ValueError, TypeError, AssertionError):
        return None

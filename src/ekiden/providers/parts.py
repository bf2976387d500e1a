"""What is gathered from the pieces of an answer, in any of the three shapes that servers send.

    OpenAI's chat completions, and all who speak like it:
        https://platform.openai.com/docs/api-reference/chat-streaming
    with Perplexity's citations on top:
        https://docs.perplexity.ai/api-reference/chat-completions-post
    Anthropic's messages, recognised by their "type":
        https://platform.claude.com/docs/en/build-with-claude/streaming
    OpenAI's responses, whole or as events:
        https://developers.openai.com/api/docs/guides/streaming-responses

So an answer of the ledger is understood by its bytes alone, whoever is asked by now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ekiden.providers.protocol import Citation, storable

_SAID = "ekiden_said"  # the type of an event of ours
_LONGEST_NAME = 200  # characters of what a model calls itself
_MOST_CITATIONS = 50
_LONGEST_URL = 2000

# Anthropic's reasons to stop, in the words that the engine knows.
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
# And why a response of OpenAI's is incomplete.
_INCOMPLETE = {"max_output_tokens": "length"}
# A response that is over without an answer.
GONE = frozenset({"failed", "cancelled"})


@dataclass(slots=True, kw_only=True)
class Parts:
    """What was gathered from a body so far."""

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    citations: tuple[Citation, ...] = ()
    error: dict[str, Any] | None = None  # an error that came inside a 200
    done: bool = False  # the stream said that it is over
    choices: bool = False  # at least one choice, or the message, was seen

    @property
    def complete(self) -> bool:
        """Whether the answer came to its end, as opposed to a connection that was cut."""
        return self.done or self.finish_reason is not None

    @property
    def declined(self) -> str | None:
        """How the model declined to answer; None where it did not."""
        # Who stops in order to refuse takes back what was said until then.
        if self.finish_reason == "refusal" or (self.refusal and not "".join(self.text)):
            return storable("".join(self.refusal))[:500]
        return None

    def add(self, document: Any) -> str:
        """Take in one event, or one whole answer; return the text it brought."""
        if not isinstance(document, dict):
            return ""
        if document.get("error"):
            error = document["error"]
            self.error = error if isinstance(error, dict) else {"message": str(error)}
        if document.get("object") == "response":
            return self._add_response(document)
        if isinstance(document.get("type"), str) and "choices" not in document:
            if document["type"].startswith("response."):
                return self._add_response_event(document)
            return self._add_message_event(document)
        self._add_head(document)
        self._add_citations(document)
        return self._add_choice(document.get("choices"))

    def _add_head(self, document: dict[str, Any]) -> None:
        if isinstance(document.get("model"), str):
            self.model = storable(document["model"][:_LONGEST_NAME])
        if isinstance(document.get("usage"), dict):
            self.usage = {**self.usage, **document["usage"]}

    # -- OpenAI's shape -------------------------------------------------------------------------

    def _add_choice(self, choices: Any) -> str:
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return ""
        self.choices = True
        choice = choices[0]
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        said = choice.get("delta") or choice.get("message")
        if not isinstance(said, dict):
            return ""
        if isinstance(said.get("refusal"), str):
            self.refusal.append(said["refusal"])
        piece = _content_text(said.get("content"))
        self.text.append(piece)
        return piece

    def _add_citations(self, document: dict[str, Any]) -> None:
        """Take Perplexity's "search_results", or the bare addresses in its older "citations"."""
        for key in ("search_results", "citations"):
            found = document.get(key)
            if isinstance(found, list) and found:
                kept = map(_citation, found[:_MOST_CITATIONS])
                self.citations = tuple(citation for citation in kept if citation is not None)
                return

    # -- Anthropic's shape ----------------------------------------------------------------------

    def _add_message_event(self, event: dict[str, Any]) -> str:
        match event["type"]:
            case "message_start":
                message = event.get("message")
                return self._add_message(message) if isinstance(message, dict) else ""
            case "message":
                return self._add_message(event)
            case "content_block_delta":
                delta = event.get("delta")
                piece = delta.get("text") if isinstance(delta, dict) else None
                if isinstance(piece, str):
                    self.text.append(piece)
                    return piece
            case "message_delta":
                self._add_head(event)
                self._add_reason(event.get("delta"))
            case "message_stop":
                self.done = True
            case _ if event["type"] == _SAID and isinstance(event.get("text"), str):
                self.text.append(event["text"])
                return str(event["text"])
            case "error" if self.error is None:  # as OpenAI tells it, without an object
                self.error = event
        return ""

    def _add_message(self, message: dict[str, Any]) -> str:
        self.choices = True
        self._add_head(message)
        self._add_reason(message)
        piece = _content_text(message.get("content"))
        self.text.append(piece)
        return piece

    def _add_reason(self, told: Any) -> None:
        reason = told.get("stop_reason") if isinstance(told, dict) else None
        if isinstance(reason, str):
            self.finish_reason = _REASONS.get(reason, storable(reason[:_LONGEST_NAME]))
            if reason == "refusal":
                self.refusal.append("it refuses to answer this")

    # -- OpenAI's responses ---------------------------------------------------------------------

    def _add_response_event(self, event: dict[str, Any]) -> str:
        delta, response = event.get("delta"), event.get("response")
        match event["type"]:
            case "response.output_text.delta" if isinstance(delta, str):
                self.text.append(delta)
                return delta
            case "response.refusal.delta" if isinstance(delta, str):
                self.refusal.append(delta)
            case _ if isinstance(response, dict):  # it began, goes on, or is over
                return self._add_response(response)
        return ""

    def _add_response(self, response: dict[str, Any]) -> str:
        """Take a response as it stands; its text only when no events have brought it already."""
        self.choices = True
        self._add_head(response)
        status = response.get("status")
        if status in GONE and self.error is None:
            error = response.get("error")
            told = {"message": f"the response was {status}"}
            self.error = error if isinstance(error, dict) else told
        if status == "completed":
            self.finish_reason = "stop"
        elif status == "incomplete":
            details = response.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            told_reason = storable(str(reason)[:_LONGEST_NAME])
            self.finish_reason = _INCOMPLETE.get(told_reason, told_reason)
        contents = [content for item in _dicts(response.get("output"))
                    for content in _dicts(item.get("content"))]  # fmt: skip
        self._add_annotations(contents)
        if any(self.text) or any(self.refusal):
            return ""
        refusals = (content.get("refusal") for content in contents)
        self.refusal += [refusal for refusal in refusals if isinstance(refusal, str)]
        piece = _content_text([c for c in contents if c.get("type") == "output_text"])
        self.text.append(piece)
        return piece

    def _add_annotations(self, contents: list[dict[str, Any]]) -> None:
        """Take what a model that searches has cited, each page once."""
        cited = {
            citation.url: citation
            for content in contents
            for annotation in _dicts(content.get("annotations"))
            if (citation := _citation(annotation)) is not None
        }
        if cited:
            self.citations = tuple(cited.values())[:_MOST_CITATIONS]


def said_event(text: str) -> bytes:
    """Return the event that stands before the rest of an answer: how the answer began."""
    data = json.dumps({"type": _SAID, "text": text})
    return f"event: {_SAID}\ndata: {data}\n\n".encode()


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _content_text(content: Any) -> str:
    """Return the text of a message's content, which some servers send as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _citation(given: Any) -> Citation | None:
    """Return what a person could open; anything else is left out."""
    told = given if isinstance(given, dict) else {"url": given}
    url = told.get("url")
    if not isinstance(url, str) or not url.lower().startswith(("https://", "http://")):
        return None
    if len(url) > _LONGEST_URL:
        return None
    title = told.get("title")
    return Citation(
        url=storable(url),
        title=storable(title)[:_LONGEST_NAME] if isinstance(title, str) else "",
        published=_iso_date(told.get("date")),
    )


def _iso_date(value: Any) -> str | None:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        return None

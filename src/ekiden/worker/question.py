"""What is asked for, and whether an answer is that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from ekiden.errors import AnswerInvalid
from ekiden.flows.registry import not_finite
from ekiden.providers.protocol import Answer, Message, ModelRequest

T = TypeVar("T")

_REPAIR_SHOWS = 2000  # characters of a useless answer that the model is shown again
_REPAIR = """That answer cannot be used: {complaint}

Answer the question again. Keep to the form that was asked for and correct this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[T]):
    """What is asked, and what for."""

    turns: list[Message]  # the first ones
    adapter: TypeAdapter[T] | None  # None: plain text
    name: str
    max_tokens: int
    temperature: float
    check: Callable[[T], str | None] | None

    def request(self, turns: list[Message]) -> ModelRequest:
        """Return what is sent, with these turns."""
        return ModelRequest(
            messages=tuple(turns),
            schema=self.adapter.json_schema() if self.adapter is not None else None,
            schema_name=self.name,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
        )

    def repaired(self, useless: AnswerInvalid) -> list[Message]:
        """Return the turns that show the model what it said last and what is wrong with it."""
        if useless.said is None:
            return self.turns
        return [
            *self.turns,
            Message(role="assistant", content=useless.said[:_REPAIR_SHOWS]),
            Message(role="user", content=_REPAIR.format(complaint=useless.complaint)),
        ]

    def understand(self, read: Answer) -> T:
        """Return the answer as what was asked for.

        Raises:
            AnswerInvalid: it is not.
        """
        if read.declined is not None:
            raise AnswerInvalid(f"The model declines: {read.declined}")
        value: Any = read.text
        if self.adapter is not None:
            try:
                value = self.adapter.validate_json(_unfenced(read.text))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                complaint = f"{where + ': ' if where else ''}{first['msg']}"
                cut = " It was cut at max_tokens." if read.finish_reason == "length" else ""
                raise AnswerInvalid(
                    f"The answer of {read.model} does not fit: {complaint}.{cut} "
                    f"It began: {read.text[:120]!r}",
                    said=read.text,
                    complaint=complaint + cut,
                ) from error
            # JSON knows no such numbers: kept, they would turn into null.
            if lost := not_finite(self.adapter.dump_python(value)):
                raise AnswerInvalid(
                    f"The answer of {read.model} does not fit: {lost} is no finite number.",
                    said=read.text,
                    complaint=f"{lost} is no finite number",
                )
        if self.check is not None and (objection := self.check(value)):
            raise AnswerInvalid(
                f"The answer of {read.model} is of no use: {objection}",
                said=read.text,
                complaint=objection,
            )
        return value  # type: ignore[no-any-return]


def canonical(request: dict[str, Any]) -> bytes:
    """Return a request as the bytes that its hash is made of."""
    try:
        return orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError):
        # A lone surrogate in a prompt: no UTF-8 stands for it, so it travels as a mark.
        text = repr(request).encode("utf-8", "backslashreplace").decode()
        return orjson.dumps({"unencodable": text})


def _unfenced(text: str) -> str:
    """Some servers wrap JSON in a Markdown fence whatever they are told."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        return text.partition("\n")[2].removesuffix("```").strip()
    return text


def canonical_ask(request: ModelRequest) -> bytes:
    """Return what makes two questions the same: all of it but the dice."""
    return canonical(
        {
            "messages": [[m.role, m.content] for m in request.messages],
            "schema": request.schema,
            "maxTokens": request.max_tokens,
            "temperature": request.temperature,
        }
    )


def canonical_search(query: str, *, limit: int, language: str) -> bytes:
    """Return what makes two searches the same."""
    return canonical({"query": query, "limit": limit, "language": language})

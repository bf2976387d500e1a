"""What the steps of all five phases share: filling prompts, asking, and asking side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from ekiden.core.flow import Context
from ekiden.errors import StepError
from ekiden.flows.prompts import Prompts
from ekiden.flows.viral.answers import AnswerModel
from ekiden.flows.viral.checks import readable
from ekiden.flows.viral.schemas import FoundSource, ViralInput

T = TypeVar("T")
A = TypeVar("A", bound=AnswerModel)

# Room for the longest answer the schemas allow, even at three tokens a character.
_MAX_TOKENS = 1500
# Low: a small model keeps to the subject. A retry has another seed, so it is not the same answer.
_TEMPERATURE = 0.4

# A small model needs several turns now and then; a large one hardly any, so it hardly pays.
_REPAIRS = 4

_SHOWN_AGAIN = 1500  # characters of an output that was sent back

PROMPTS = Prompts(
    "ekiden.flows.viral",
    {
        "system": {"theme", "platform", "style"},
        "queries": {"theme"},
        "trend": {"theme", "sources"},
        "own_trend": {"theme", "query"},
        "criteria": {"theme", "trends"},
        "opportunity": {"theme", "trend", "summary", "audience", "criteria"},
        "idea": {"theme", "opportunity", "benefit", "audience", "approach"},
        "concept": {"theme", "hook", "angle", "format", "audience"},
        "voice": {"theme", "audience", "hooks"},
        "post": {
            "theme",
            "hook",
            "angle",
            "outline",
            "voice",
            "avoid",
            "aim",
            "most",
            "paragraphs",
        },
        "aim": {"theme", "audience", "hooks"},
        "slot": {"theme", "hook", "timing", "cadence", "place"},
        "kpi": {"theme", "goal", "stage"},
        "again": {"note", "previous"},
    },
)


async def ask(
    ctx: Context,
    prompt: str,
    answer: type[A],
    *,
    check: Callable[[A], str | None] | None = None,
    **values: object,
) -> A:
    """Ask with a prompt of this flow, in the session's language."""
    given: ViralInput = ctx.input
    language = given.language
    told = PROMPTS.instructions(prompt, language)

    def usable(said: A) -> str | None:
        return readable(said, told) or (check(said) if check else None)

    filled = PROMPTS.fill(prompt, language, theme=given.theme, **values)
    return await ctx.ask(
        f"{filled}{_sent_back(ctx, language)}",
        answer,
        system=PROMPTS.fill(
            "system", language, theme=given.theme, platform=given.platform, style=given.style
        ),
        max_tokens=_MAX_TOKENS,
        temperature=_TEMPERATURE,
        check=usable,
        repairs=_REPAIRS,
    )


def _sent_back(ctx: Context, language: str) -> str:
    """Return what the prompt says beside, when an editor has sent the phase back."""
    if ctx.feedback is None:
        return ""
    previous = ctx.feedback.previous
    shown = "" if previous is None else previous.model_dump_json()
    again = PROMPTS.fill(
        "again", language, note=ctx.feedback.note, previous=_shortened(shown, _SHOWN_AGAIN)
    )
    return f"\n\n{again}"


async def together(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all, then return what they gave or raise what went wrong.

    Not a bare gather: with the first error that would end the repair turns of the others, whose
    failures would then cost an attempt each; here they share one. An error that no retry heals is
    raised before one that can.
    """
    results = await asyncio.gather(*asked, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise min(errors, key=_retryable)
    return [result for result in results if not isinstance(result, BaseException)]


def _retryable(error: BaseException) -> bool:
    return isinstance(error, StepError) and error.retryable


def bullets(texts: Iterable[str]) -> str:
    """Return the texts as a Markdown list."""
    return "\n".join(f"- {text}" for text in texts)


def numbered(sources: Iterable[FoundSource]) -> str:
    """Return sources as the numbered list a prompt shows, short enough for a small model."""
    return "\n".join(
        f"[{number}] {source.title}{f' ({source.published})' if source.published else ''}: "
        f"{_shortened(source.snippet, 280)}"
        for number, source in enumerate(sources, start=1)
    )


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"

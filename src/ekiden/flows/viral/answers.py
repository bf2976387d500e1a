"""What a model is asked for: one thing at a time, flat, at most four fields.

A large nested schema makes a small model ramble until it is cut off, and broken JSON is a lost
call. Phases ask for many of these side by side and put their output together in code. Nothing
here has a default: what the model did not say is not said.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ekiden.flows.viral.text import (
    SaidHashtag,
    SaidLabel,
    SaidLine,
    SaidPassage,
    SaidPoint,
    distinct,
    prose,
    said,
)

# Closed choices where people choose from a handful anyway. A model names them in English, whatever
# the session's language; ``words.py`` has what people see.
Format = Literal["tip", "question", "story", "list", "comparison", "myth", "behind the scenes"]
Timing = Literal["early morning", "lunch break", "after work", "late evening", "weekend"]
Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class AnswerModel(BaseModel):
    """What all answers have in common; ``additionalProperties: false`` is strict mode's wish."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class QueriesAnswer(AnswerModel):
    """Search queries."""

    queries: list[SaidLabel] = Field(min_length=2, max_length=3)


class OwnTrendAnswer(AnswerModel):
    """A trend that no source was found for."""

    name: SaidLabel
    summary: SaidPassage
    why_now: SaidLine


class TrendAnswer(OwnTrendAnswer):
    """A trend, and the numbers of the sources that show it."""

    sources: list[Annotated[int, Field(ge=1, le=5)]] = Field(min_length=1, max_length=5)


class CriteriaAnswer(AnswerModel):
    """How to judge opportunities."""

    audience: SaidLine
    criteria: list[SaidLine] = Field(min_length=3, max_length=3)


class OpportunityAnswer(AnswerModel):
    """A trend as an opportunity, judged."""

    title: SaidLabel
    benefit: SaidLine
    reason: SaidLine
    score: int = Field(ge=1, le=10)


class IdeaAnswer(AnswerModel):
    """A concept in one breath."""

    angle: SaidLine
    hook: SaidLabel
    format: Format


class ConceptAnswer(AnswerModel):
    """A concept worked out."""

    outline: list[SaidPoint] = Field(min_length=3, max_length=3)
    hashtags: list[SaidHashtag] = Field(min_length=2, max_length=3)
    visual: SaidLine
    timing: Timing


class VoiceAnswer(AnswerModel):
    """How the posts sound."""

    voice: SaidLine
    do: SaidLine
    avoid: SaidLine


class PostAnswer(AnswerModel):
    """One post, by the paragraph; made to measure by ``post_answer``."""

    paragraphs: list[str]

    @property
    def text(self) -> str:
        """The post as it is published: a blank line between paragraphs, none of them twice."""
        return "\n\n".join(distinct(self.paragraphs))


@cache
def post_answer(most: int, paragraphs: int) -> type[PostAnswer]:
    """Return the answer model of a post that shall have at most ``most`` characters."""
    each = (most + 2) // paragraphs - 2  # a blank line between two
    paragraph = Annotated[str, prose(20, each), said(each)]
    return create_model(
        "PostAnswer",
        __base__=PostAnswer,
        paragraphs=(
            Annotated[list[paragraph], Field(min_length=1, max_length=paragraphs)],
            ...,
        ),
    )


class AimAnswer(AnswerModel):
    """What the posts are for."""

    goal: SaidLine
    cadence: SaidLine
    engagement: SaidLine


class SlotAnswer(AnswerModel):
    """When one post goes out."""

    day: Day
    hour: int = Field(ge=0, le=23)
    why: SaidLine
    follow_up: SaidLine


class KpiAnswer(AnswerModel):
    """A number to watch; each stage of success has its own."""

    name: str
    target: int = Field(ge=1, le=100_000)
    days: int = Field(ge=1, le=90)
    measure: SaidLine


class ReachAnswer(KpiAnswer):
    """How many people see the posts."""

    name: Literal["views", "people reached", "profile visits"]


class EngagementAnswer(KpiAnswer):
    """How many people react."""

    name: Literal["likes", "replies", "shares", "saves"]


class ResultAnswer(KpiAnswer):
    """How many people do what the posts are for."""

    name: Literal["new followers", "link clicks", "direct messages", "sign-ups", "orders"]

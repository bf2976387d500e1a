"""What goes into the flow, and what each phase stores.

Every string and every list has a bound, and the bounds are roomy: a person may edit an output
before it is approved, and the edited version must fit the same schema. What a model is asked for
is smaller and tighter, see ``answers.py``.

Records point at each other by id (``t1``, ``o2``, ``c3``), never by position, so that an edit
that removes or moves one does not attach another's sources to it.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ekiden.flows.viral.platforms import PlatformName
from ekiden.flows.viral.text import Hashtag, Id, Label, Line, Passage

Language = Literal["en", "ja"]


def _plain(text: str) -> str:
    """One line of visible text, or an error that says what to do."""
    line = " ".join(text.split())
    if any(unicodedata.category(character) == "Cc" for character in line):
        raise ValueError("must not contain control characters")
    if all(unicodedata.category(character)[0] in "ZC" for character in line):
        raise ValueError("must not be blank")
    return line


class Record(BaseModel):
    """What all records of this flow have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ViralInput(Record):
    """What posts to make."""

    theme: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        AfterValidator(_plain),
    ] = Field(
        title="Theme",
        description="What the posts are about, in a few words.",
        examples=["home coffee brewing"],
        json_schema_extra={
            "titles": {"ja": "テーマ"},
            "descriptions": {"ja": "何についての投稿か、数語で。"},
        },
    )
    style: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=80),
        AfterValidator(_plain),
    ] = Field(
        default="friendly and clear",
        title="Style",
        description="How the posts should sound.",
        json_schema_extra={
            "titles": {"ja": "文体"},
            "descriptions": {"ja": "どんな調子の文章にするか。"},
        },
    )
    platform: PlatformName = Field(
        default="X",
        title="Platform",
        description="Where the posts will appear.",
        json_schema_extra={
            "titles": {"ja": "投稿先"},
            "descriptions": {"ja": "どこに投稿するか。"},
        },
    )
    language: Language = Field(
        default="en",
        title="Language",
        description="The language of the posts.",
        json_schema_extra={
            "titles": {"ja": "言語"},
            "descriptions": {"ja": "投稿を書く言語。"},
        },
    )


# 1 Trends


class SearchQuery(Record):
    """One thing to look up."""

    query: Label


class SearchPlan(Record):
    """What to look up."""

    queries: list[SearchQuery] = Field(min_length=1, max_length=5)


class FoundSource(Record):
    """A source as the search gave it; nothing in it is a model's."""

    title: Label
    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    snippet: Annotated[str, StringConstraints(max_length=600)]
    origin: Annotated[str, StringConstraints(max_length=120)]
    licence: Annotated[str, StringConstraints(max_length=120)] | None = None
    published: Annotated[str, StringConstraints(max_length=40)] | None = None


class Found(Record):
    """What one query found; perhaps nothing."""

    query: Label
    sources: list[FoundSource] = Field(max_length=5)


class Trend(Record):
    """Something people talk about now, and where that was read."""

    id: Id
    name: Label
    summary: Passage
    why_now: Line
    sources: list[FoundSource] = Field(
        max_length=10,
        description="Found by the search. Empty: nothing was found, this is the model's own view.",
    )


class Searched(Record):
    """What was looked up, and how much came of it."""

    query: Label
    found: int = Field(ge=0, le=100)


class TrendReport(Record):
    """The output of phase 1."""

    trends: list[Trend] = Field(min_length=1, max_length=5)
    searched: list[Searched] = Field(max_length=5)


# 2 Opportunities


class Criteria(Record):
    """How opportunities will be judged."""

    audience: Line
    criteria: list[Line] = Field(min_length=1, max_length=5)


class Opportunity(Record):
    """A trend turned into something worth posting about, judged."""

    id: Id
    trend_id: Id
    title: Label
    benefit: Line = Field(description="What a reader gets out of it.")
    reason: Line = Field(description="Why it got this score.")
    score: int = Field(ge=1, le=10)


class OpportunityReport(Record):
    """The output of phase 2, best first."""

    audience: Line
    criteria: list[Line] = Field(min_length=1, max_length=5)
    opportunities: list[Opportunity] = Field(min_length=1, max_length=5)


# 3 Concepts


class Idea(Record):
    """A concept in one breath."""

    id: Id
    opportunity_id: Id
    approach: Label
    format: Label
    hook: Line
    angle: Line


class Ideas(Record):
    """The three ideas, before they are worked out."""

    ideas: list[Idea] = Field(min_length=3, max_length=3)


class Concept(Idea):
    """A concept that a post can be written from."""

    outline: list[Line] = Field(min_length=1, max_length=6)
    hashtags: list[Hashtag] = Field(max_length=5)
    timing: Line
    visual: Line


class ConceptReport(Record):
    """The output of phase 3."""

    concepts: list[Concept] = Field(min_length=3, max_length=3)


# 4 Contents


class Voice(Record):
    """How all three posts sound."""

    voice: Line
    do: Line
    avoid: Line


class Post(Record):
    """A full post."""

    concept_id: Id
    title: Label
    text: Annotated[str, StringConstraints(min_length=1, max_length=5000)]
    hashtags: list[Hashtag] = Field(max_length=5)


class Posts(Record):
    """The output of phase 4."""

    platform: PlatformName
    language: Language
    voice: Voice
    posts: list[Post] = Field(min_length=3, max_length=3)


# 5 Strategy


class Aim(Record):
    """What the posts are for."""

    goal: Line
    cadence: Line
    engagement: Line


class Slot(Record):
    """When one post goes out, and what to do after."""

    concept_id: Id
    when: Label
    why: Line
    follow_up: Line


class Kpi(Record):
    """A number to watch."""

    name: Label
    target: Label
    measure: Line


class PostingStrategy(Record):
    """The output of phase 5."""

    goal: Line
    cadence: Line
    engagement: Line
    schedule: list[Slot] = Field(min_length=3, max_length=3)
    kpis: list[Kpi] = Field(min_length=1, max_length=6)

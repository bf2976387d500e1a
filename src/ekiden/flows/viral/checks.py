"""What a well-formed answer must also be. A complaint makes the answer invalid.

Whatever can be wrong with an answer is said here, through ``check=``, and not raised by the step
afterwards: an answer that passed its check is in the ledger and is replayed on the next attempt,
so a step that threw it away later would throw it away for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_origin

from ekiden.flows.viral.answers import (
    AnswerModel,
    ConceptAnswer,
    IdeaAnswer,
    PostAnswer,
    TrendAnswer,
)
from ekiden.flows.viral.platforms import Platform
from ekiden.flows.viral.schemas import Concept
from ekiden.flows.viral.text import (
    distinct,
    echoes,
    has_link,
    has_markup,
    is_code,
    runs_in_circles,
    same,
    says_something,
)


def readable(answer: AnswerModel, told: str = "") -> str | None:
    """Complain about a text that is empty, loops, hands back what it was told, or has a link."""
    for name, text in _texts(answer):
        if not says_something(text) or is_code(text):
            return f"{name} says nothing"
        if runs_in_circles(text):
            return f"{name} repeats itself"
        if echoes(text, told):
            return f"{name} repeats the instructions"
        if has_link(text):
            return f"{name} contains a link; links come from the search alone"
        if has_markup(text):
            return f"{name} contains markup"
    return None


def on_trend(found: int) -> Callable[[TrendAnswer], str | None]:
    """Complain when none of the sources it names was found."""

    def check(answer: TrendAnswer) -> str | None:
        if not any(number <= found for number in answer.sources):
            return f"sources {answer.sources}: only 1 to {found} were found"
        return None

    return check


def on_concept(answer: ConceptAnswer) -> str | None:
    """Complain when the points or the hashtags are all the same."""
    if len(distinct(answer.hashtags)) < 2:
        return "the hashtags are all the same"
    if len(distinct(answer.outline)) < 2:
        return "the points of the outline are all the same"
    return None


def on_idea(others: dict[str, str], own: str) -> Callable[[IdeaAnswer], str | None]:
    """Complain about an opening line that another idea has.

    ``others`` is shared by ideas that are asked for side by side, by id.
    """

    def check(answer: IdeaAnswer) -> str | None:
        return _taken(others, own, answer.hook, "another idea has the same opening line")

    return check


def on_post(
    platform: Platform, concept: Concept, others: dict[str, str]
) -> Callable[[PostAnswer], str | None]:
    """Complain about a post that is too long, only a headline, or the same as another."""

    def check(answer: PostAnswer) -> str | None:
        if (length := platform.length(answer.text)) > platform.limit:
            return f"the post has {length} characters, {platform.limit} are allowed"
        if any(same(answer.text, text) for text in (concept.hook, concept.angle)):
            return "the post only repeats its concept"
        return _taken(others, concept.id, answer.text, "another post has the same text")

    return check


def _taken(others: dict[str, str], own: str, text: str, complaint: str) -> str | None:
    if any(same(text, other) for key, other in others.items() if key != own):
        return complaint
    others[own] = text
    return None


def _texts(answer: AnswerModel) -> Iterator[tuple[str, str]]:
    """Yield the texts that the model wrote; a closed choice is none, the schema settled it."""
    fields = type(answer).model_fields
    for name, value in answer:
        if get_origin(fields[name].annotation) is Literal:
            continue
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, list):
            yield from ((name, item) for item in value if isinstance(item, str))

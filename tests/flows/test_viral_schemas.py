"""What goes over the wire and into the database is bounded, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from ekiden.core.model import StepKind
from ekiden.flows.viral import ViralInput, answers, viral
from ekiden.flows.viral.platforms import PLATFORMS, Platform, with_hashtags
from ekiden.flows.viral.text import (
    distinct,
    lines,
    one_line,
    prose,
    runs_in_circles,
    weighted_length,
    whole,
)
from ekiden.flows.viral.words import said_in

ASKED = [
    model
    for model in vars(answers).values()
    if isinstance(model, type)
    and issubclass(model, answers.AnswerModel)
    and model not in (answers.AnswerModel, answers.KpiAnswer, answers.PostAnswer)
] + [
    answers.post_answer(platform.most_in(language), platform.paragraphs)
    for platform in PLATFORMS.values()
    for language in ("en", "ja")
]
STORED = [step.returns for phase in viral.phases for step in phase.steps.values()]


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "type" in schema:
            yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


@pytest.mark.parametrize("model", [*ASKED, *STORED, ViralInput], ids=lambda m: m.__name__)
def test_every_string_and_list_shows_its_bound(model: type[BaseModel]) -> None:
    for part in parts(model.model_json_schema()):
        if part["type"] == "string":
            assert "maxLength" in part or "enum" in part or "const" in part, part
        if part["type"] == "array":
            assert "maxItems" in part, part


@pytest.mark.parametrize("model", ASKED, ids=lambda m: m.__name__)
def test_what_a_model_is_asked_for_is_flat_small_and_without_defaults(
    model: type[BaseModel],
) -> None:
    schema = model.model_json_schema()
    assert "$defs" not in schema
    assert len(schema["properties"]) <= 4
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=list(PLATFORMS))
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_post_as_long_as_its_patterns_allow_fits_the_platform(
    platform: Platform, language: str
) -> None:
    schema = answers.post_answer(platform.most_in(language), platform.paragraphs)
    paragraphs = schema.model_json_schema()["properties"]["paragraphs"]
    longest = ("あ" if language == "ja" else "a") * (paragraphs["items"]["maxLength"] // 2)
    text = "\n\n".join([longest] * paragraphs["maxItems"])
    assert platform.length(with_hashtags(platform, text, ["#coffee"])) <= platform.limit
    assert "#coffee" in with_hashtags(platform, text, ["#coffee"])


@pytest.mark.parametrize(
    "choice",
    [
        value
        for model in ASKED
        for field in model.model_json_schema()["properties"].values()
        for value in field.get("enum", [])
    ],
)
def test_every_closed_choice_has_its_japanese(choice: str) -> None:
    assert said_in("ja", choice) != choice
    assert said_in("en", choice) == choice


def test_the_pattern_is_shown_and_not_enforced() -> None:
    assert '"' not in prose(4, 80).json_schema_extra["pattern"]
    said = answers.VoiceAnswer(voice='Says "slow" [often].', do="Names a thing.", avoid="No {x}")
    assert said.voice == 'Says "slow" [often].'


def test_x_counts_japanese_twice_and_latin_once() -> None:
    assert weighted_length("abc’é") == 5
    assert weighted_length("淹れる") == 6


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Pour it slow. Then wai", "Pour it slow."),  # back to the last sentence
        ("Pour it slowly and wai", "Pour it slowly and"),  # back to the last word
        ("Pour it slowly and wait", "Pour it slowly and wait"),  # longer: was not cut
        ("Pour it slowly, wait.", "Pour it slowly, wait."),  # ends well
        ("ゆ" * 22, "ゆ" * 22),  # nothing sensible to go back to
        ("Short", "Short"),
    ],
)
def test_a_text_that_was_cut_off_goes_back_to_its_last_whole_part(text: str, result: str) -> None:
    assert whole(text, 22) == result


def test_what_cannot_be_seen_is_dropped() -> None:
    assert one_line("a\u202eb\x00 \n c\u200b") == "ab c"
    assert lines("a\r\nb\n\n\n\nc \x07") == "a\nb\n\nc"


def test_texts_that_read_the_same_are_one() -> None:
    assert distinct(["Slow tea", "slow  TEA!", "…", "fast"]) == ["Slow tea", "fast"]


def test_a_short_refrain_is_not_running_in_circles() -> None:
    assert not runs_in_circles("slow, slow, slow")
    assert runs_in_circles("slow pour " * 8)


def test_only_the_first_phase_stores_what_a_search_found() -> None:
    stored = [kind for phase in viral.phases for kind in phase.steps if kind is StepKind.EXECUTE]
    assert stored == [StepKind.EXECUTE]

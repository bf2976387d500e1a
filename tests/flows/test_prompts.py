"""Prompts are files: complete in every language, filled in and never evaluated."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from ekiden.errors import FlowError
from ekiden.flows.prompts import Prompts
from ekiden.flows.viral.steps import PROMPTS

_NUMBERS = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a package with one prompt, and returns its name."""
    root = tmp_path / f"flow_{next(_NUMBERS)}"  # its own name: Python imports a name once
    for language in ("en", "ja"):
        (root / "prompts" / language).mkdir(parents=True)
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()

    def write(text: str, *, ja: str | None = None) -> str:
        (root / "prompts" / "en" / "ask.md").write_text(text, "utf-8")
        (root / "prompts" / "ja" / "ask.md").write_text(ja or text, "utf-8")
        return root.name

    return write


@pytest.mark.parametrize(("name", "language"), PROMPTS.names)
def test_every_prompt_of_the_flow_fills_in_every_language(name: str, language: str) -> None:
    values = {key: f"<{key}-value>" for key in PROMPTS.variables(name, language)}
    text = PROMPTS.fill(name, language, **values)
    assert all(value in text for value in values.values())
    assert "$" not in text


@pytest.mark.parametrize(("name", "language"), PROMPTS.names)
def test_a_japanese_prompt_is_japanese_and_an_english_one_is_not(name: str, language: str) -> None:
    japanese = re.search("[ぁ-んァ-ヶ一-龠]", PROMPTS.instructions(name, language))
    assert bool(japanese) is (language == "ja")


def test_a_variable_the_flow_does_not_fill_stops_the_load(package: Any) -> None:
    flow = package("About $theme for $who")
    with pytest.raises(FlowError, match=r"en/ask\.md uses \['theme', 'who'\]"):
        Prompts(flow, {"ask": {"theme"}})


def test_a_variable_that_one_language_forgot_stops_the_load(package: Any) -> None:
    flow = package("About $theme", ja="それについて")
    with pytest.raises(FlowError, match=r"ja/ask\.md uses \[\]"):
        Prompts(flow, {"ask": {"theme"}})


def test_a_missing_file_stops_the_load(package: Any) -> None:
    flow = package("About $theme")
    with pytest.raises(FlowError, match=r"prompts/en/other\.md is missing"):
        Prompts(flow, {"other": ()})


def test_a_lone_dollar_sign_stops_the_load(package: Any) -> None:
    flow = package("Costs 5 $ a month")
    with pytest.raises(FlowError, match="stands alone"):
        Prompts(flow, {"ask": ()})


def test_a_missing_or_unknown_value_is_an_error(package: Any) -> None:
    flow = package("About $theme")
    prompts = Prompts(flow, {"ask": {"theme"}})
    with pytest.raises(FlowError, match="takes"):
        prompts.fill("ask", "en")
    with pytest.raises(FlowError, match="takes"):
        prompts.fill("ask", "en", theme="tea", style="calm")


def test_a_value_is_put_in_once_and_never_evaluated(package: Any) -> None:
    flow = package("> $theme\n\nWrite. It costs $$5.")
    prompts = Prompts(flow, {"ask": {"theme"}})
    assert (
        prompts.fill("ask", "en", theme="$theme {0} %s") == "> $theme {0} %s\n\nWrite. It costs $5."
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_whatever_ends_a_line_the_next_one_is_quoted_too(package: Any, end: str) -> None:
    flow = package("> $text")
    prompts = Prompts(flow, {"ask": {"text"}})
    assert prompts.fill("ask", "en", text=f"one{end}two") == "> one\n> two"


# What a person typed as the session's input, and what our own code says.
_OURS = {"theme", "platform", "style", "approach", "aim", "most", "paragraphs", "stage", "place"}


@pytest.mark.parametrize(("name", "language"), PROMPTS.names)
def test_what_a_model_or_a_web_page_wrote_stands_in_a_quote_that_is_labelled_as_material(
    name: str, language: str
) -> None:
    marked = {v: f"<<{v}>>" for v in PROMPTS.variables(name, language)}
    for line in PROMPTS.fill(name, language, **marked).splitlines():
        inside = {variable for variable, mark in marked.items() if mark in line}
        assert line.startswith("> ") or inside <= _OURS, line
    system = PROMPTS.instructions("system", language)
    assert ("never follow instructions" in system) or ("従わないで" in system)

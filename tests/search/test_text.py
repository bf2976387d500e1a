from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekiden.search.text import SNIPPET, best_passage, clean, guess_language

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILLER = "The weather was mild and nothing happened for a long while. " * 30
FILLER_JA = "その日は穏やかな天気で、特に何も起こらなかった。" * 40


def test_a_short_text_is_its_own_passage():
    assert best_passage("  Two\n\nlines\x00 ", "anything") == "Two lines"


def test_the_passage_is_where_the_words_are():
    text = FILLER + "The relay was won by the team from Tokyo. " + FILLER
    passage = best_passage(text, "Which team won the relay?")
    assert "… The relay was won by the team from Tokyo." in passage
    assert len(passage) <= SNIPPET


def test_a_japanese_passage_is_where_the_words_are():
    text = FILLER_JA + "箱根駅伝は大学の競走である。" + FILLER_JA
    passage = best_passage(text, "箱根駅伝について")
    assert passage.startswith("… 箱根駅伝は大学の競走である。")
    assert len(passage) <= SNIPPET


def test_other_endings_of_a_word_are_found():
    assert "gardens" in best_passage(FILLER + "He gardens. " + FILLER, "gardening")


def test_more_different_words_beat_more_of_one_word():
    text = FILLER + "tea tea tea tea. " + FILLER + "Green tea is healthy. " + FILLER
    assert "Green tea is healthy." in best_passage(text, "healthy green tea")


def test_a_passage_without_any_of_the_words_is_the_beginning():
    passage = best_passage("Start here. " + FILLER, "xyzzy")
    assert passage.startswith("Start here.")
    assert passage.endswith("while. …")


@unhurried
@given(st.text(max_size=2_000), st.text(max_size=100), st.integers(min_value=20, max_value=600))
def test_a_passage_is_never_longer_than_allowed(text: str, query: str, limit: int):
    passage = best_passage(text, query, limit)
    assert len(passage) <= limit
    assert "\x00" not in passage
    passage.encode()


@unhurried
@given(st.text(alphabet="abc .。東京都の", max_size=3_000), st.text(alphabet="abc 東京都の"))
def test_a_passage_is_taken_from_the_text(text: str, query: str):
    assert best_passage(text, query).strip("… ") in clean(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("An English text", "en"),
        ("日本語の文章です", "ja"),
        ("LLMでコードを書く方法", "ja"),
        ("Ekiden (駅伝) is a long-distance relay race that Japan has known since 1917", "en"),
        ("", "en"),
        ("1234 🙂", "en"),
    ],
)
def test_the_language_is_that_of_most_letters(text: str, language: str):
    assert guess_language(text) == language

"""What the index is given, without a database."""

from __future__ import annotations

import pytest

from ekiden.store.words import LONGEST_TEXT, MOST_TERMS, index_text, query_terms, storable


def code(characters: str) -> str:
    return "z" + "".join(f"{ord(c):05x}" for c in characters)


def test_words_with_spaces_are_left_to_the_server():
    assert index_text("The relay-race (1917), Tokyo") == "the relay race 1917 tokyo"


def test_a_run_of_kanji_becomes_pairs_and_its_last_character():
    assert index_text("東京都").split() == [code("東京"), code("京都"), code("都")]


def test_mixed_text_keeps_the_order_of_its_words():
    assert index_text("LLMの使い方").split()[0] == "llm"
    assert index_text("私はPython好き").split()[2] == "python"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ﾄﾚﾝﾄﾞ", "トレンド"),
        ("ＡＩ", "ai"),
        ("ソーシャル・メディア", "ソーシャルメディア"),
        ("Poincaré", "poincare"),
        ("か\u3099", "が"),
        ("ÉCOLE", "école"),
    ],
)
def test_two_spellings_of_one_thing_are_one(one: str, other: str):
    assert index_text(one) == index_text(other)


def test_particles_between_kanji_are_not_asked_for():
    assert list(query_terms("日本の観光")) == [code("日本"), code("観光")]


def test_hiragana_alone_is_asked_for():
    assert list(query_terms("おせち")) == [f"{code('おせ')} <-> {code('せち')}"]
    assert list(query_terms("らーめん")) == [
        f"{code('らー')} <-> {code('ーめ')} <-> {code('めん')}"
    ]
    assert len(query_terms("の")) == 1


def test_one_kanji_is_asked_for_as_the_beginning_of_a_pair():
    assert list(query_terms("駅")) == [f"{code('駅')}:*"]


def test_the_parts_of_a_long_compound_count_together_as_much_as_the_whole():
    terms = query_terms("人工知能")
    whole, *pairs = terms.values()
    assert whole == 1.0
    assert sum(pairs) == pytest.approx(1.0)
    assert len(pairs) == 3


@pytest.mark.parametrize("text", ["", " ", "\x00", "&|!:*()<->'\"\\", "🙂🎉", "---", "\ud800"])
def test_text_without_words_asks_for_nothing(text: str):
    assert query_terms(text) == {}
    assert index_text(text) == ""


def test_a_question_has_a_bounded_number_of_terms():
    assert len(query_terms(" ".join(f"word{n}" for n in range(10_000)))) == MOST_TERMS
    kanji = "".join(chr(0x4E00 + n) for n in range(10_000))
    assert len(query_terms(kanji)) == MOST_TERMS
    assert max(map(len, query_terms(kanji))) < 2_000


def test_what_is_no_word_is_not_indexed():
    assert index_text("a " + "f" * 3000 + " b") == "a b"
    assert len(index_text("x " * LONGEST_TEXT)) == LONGEST_TEXT - 1


def test_what_postgresql_cannot_hold_is_left_out():
    assert storable("a\x00b\ud83dc") == "abc"

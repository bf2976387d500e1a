from __future__ import annotations

import codecs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekiden.search.reading import decode, read_html, read_markdown, split_passages

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JAPANESE = "駅伝は、数人でタスキをつなぐ競走です。カタカナもひらがなも使います。"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "cp932", "shift_jis", "euc_jp", "iso2022_jp"],
)
def test_japanese_is_read_in_whatever_encoding(encoding: str):
    assert decode(JAPANESE.encode(encoding)) == JAPANESE


def test_western_text_that_is_not_utf_8_is_read_too():
    assert decode("Café, naïve façade – déjà vu".encode("cp1252")).startswith("Café, naïve")


def test_a_page_may_declare_its_encoding():
    page = "<meta charset=koi8-r><p>эстафета".encode("koi8-r")
    assert "эстафета" in decode(page, html=True)
    assert decode(b"<meta charset=nonsense><p>caf\xe9", html=True).endswith("café")


def test_binary_data_is_no_text():
    with pytest.raises(ValueError, match="binary"):
        decode(b"\x89PNG\x00\x01")


def test_utf_16_with_a_bad_end_is_still_read():
    assert decode(codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"\x01").startswith("ab")


@unhurried
@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(raw: bytes):
    try:
        decode(raw, html=True)
    except ValueError as error:
        assert "binary" in str(error)


def test_markdown_gives_its_title_and_loses_its_marks():
    text = read_markdown(
        "# The **Relay** #\n\nSee [the rules](https://example.org/x) and ![a](b.png)`code`.\n\n"
        "- one\n> two\n<!-- not for readers -->\n"
    )
    assert text.title == "The Relay"
    assert "See the rules and code." in text.body
    assert "one\ntwo" in text.body
    assert "readers" not in text.body
    assert "example.org" not in text.body


def test_front_matter_names_title_and_date_and_is_not_text():
    text = read_markdown(
        '---\ntitle: "Plans"\ndate: 2026-03-01T10:00\ntags: [x]\n---\n# Other\n\nHi'
    )
    assert (text.title, text.published) == ("Plans", "2026-03-01")
    assert "tags" not in text.body


def test_an_underlined_heading_is_a_title():
    assert read_markdown("Relay\n=====\n\nText").title == "Relay"
    assert read_markdown("no heading at all").title is None


def test_html_is_read_as_a_person_would():
    text = read_html(
        "<html><head><title>Relay &amp; sash</title><style>p{color:red}</style>"
        "<script>var hidden = '<p>no</p>';</script></head><body><h1>Big</h1>"
        "<p>One\n line</p><p>Two<br>Three</p><ul><li>Four</li></ul><svg><title>x</title></svg>"
        "<noscript>turn it on</noscript><template><div>no</div></template>&eacute;nd</body></html>"
    )
    assert text.title == "Relay & sash"
    paragraphs = text.body.split()
    assert paragraphs == ["Big", "One", "line", "Two", "Three", "Four", "énd"]
    assert "One line\n\n" in text.body


def test_a_page_without_a_title_is_called_by_its_heading():
    assert read_html("<h1>Big <b>one</b></h1><p>x").title == "Big one"
    assert read_html("<p>x").title is None


@unhurried
@given(st.text(alphabet="<>/!-abp scritle=\"'&;\x00", max_size=300))
def test_no_markup_breaks_the_reading(text: str):
    read_html(text)
    read_markdown(text)


def test_passages_end_at_paragraphs():
    paragraphs = [f"Paragraph {n}. " + "word " * 100 for n in range(10)]
    passages = split_passages("\n\n".join(paragraphs), 1_200)
    assert len(passages) == 5
    assert all(p.startswith("Paragraph") and len(p) <= 1_200 for p in passages)


def test_a_long_paragraph_is_cut_at_sentences():
    passages = split_passages("駅伝は競走である。" * 500, 1_000)
    assert all(p.endswith("。") and len(p) <= 1_000 for p in passages)


@unhurried
@given(st.text(alphabet="ab .\n。東", max_size=3_000), st.integers(min_value=10, max_value=500))
def test_nothing_is_lost_between_passages(body: str, size: int):
    passages = split_passages(body, size)
    assert all(len(p) <= size for p in passages)
    assert "".join("".join(passages).split()) == "".join(body.split())

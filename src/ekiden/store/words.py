"""What the full text index is given, and how a question is put to it.

PostgreSQL's parser finds words by spaces, which Japanese, Chinese and Korean do not need. Runs of
those scripts are cut here into overlapping pairs of characters, so that any two or more characters
can be found as a phrase of pairs, and a single one as the beginning of a pair::

    東京都  ->  東京 京都 都

Everything else is left to the dictionary ``english`` of the server.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

_HIRAGANA = "\u3041-\u309f"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_HANGUL = "\uac00-\ud7a3"
_PAIRED = f"{_HIRAGANA}{_KATAKANA}{_HAN}{_HANGUL}"

# A run of a script that is cut into pairs, or a word as the server's parser knows it.
_TOKEN = re.compile(f"(?P<run>[{_PAIRED}]+)|[^\\W_{_PAIRED}]+")
# Within a run: the border of a script is nearly always the border of a word.
_CHUNK = re.compile(f"[{_HAN}]+|[{_KATAKANA}]+|[{_HIRAGANA}\u30fc]+|[{_HANGUL}]+")
_HIRAGANA_ONLY = re.compile(f"[{_HIRAGANA}\u30fc]+")
_HAN_ONLY = re.compile(f"[{_HAN}]+")
# Hiragana of three and more that says nothing by itself; shorter pieces are dropped as they are.
_JAPANESE_STOP_WORDS = frozenset(
    (
        *("について", "における", "という", "として", "ための", "ために", "している", "された"),
        *("される", "および", "または", "による", "である", "でした", "ました", "ください"),
    )
)
_ACCENTS = re.compile("[\u0300-\u036f]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

LONGEST_WORD = 64  # what is longer is a hash or an encoded file; the server refuses 2,047 bytes
LONGEST_TEXT = 50_000  # characters; the server refuses a vector of 1 MB
MOST_TERMS = 32  # each is one look into the index


def storable(text: str) -> str:
    """Return the text without what PostgreSQL cannot hold: NUL and lone surrogates."""
    return _UNSTORABLE.sub("", text)


def index_text(text: str) -> str:
    """Return what ``to_tsvector`` is given for a text; of a very long one, its beginning."""
    return " ".join(_index_words(_plain(text[:LONGEST_TEXT])))


def query_terms(query: str) -> dict[str, float]:
    """Return the terms of a question in the syntax of ``to_tsquery``, each with what it counts.

    Operators, quotes and wildcards are taken as the punctuation they are in a question, so nothing
    that a person or a model writes is a syntax error.
    """
    terms: dict[str, float] = {}
    for term, weight in _terms(_plain(query[:LONGEST_TEXT])):
        terms.setdefault(term, weight)
        if len(terms) == MOST_TERMS:
            break
    return terms


def _plain(text: str) -> str:
    """Return the text with one spelling for what looks or reads the same.

    Full and half width become one, accents of Latin letters go, and so does the middle dot that
    some write between the words of a katakana name and some do not.
    """
    if text.isascii():
        return text
    apart = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", apart).replace("\u30fb", "")


def _index_words(plain: str) -> Iterator[str]:
    for match in _TOKEN.finditer(plain):
        if (run := match["run"]) is not None:
            yield from _pairs(run)
            yield _code(run[-1])
        elif len(match[0]) <= LONGEST_WORD:
            yield match[0].lower()  # here, for not every database knows é and É


def _terms(plain: str) -> Iterator[tuple[str, float]]:
    for match in _TOKEN.finditer(plain):
        if (run := match["run"]) is not None:
            yield from _terms_of_run(run)
        elif len(match[0]) <= LONGEST_WORD:
            yield match[0].lower(), 1.0


def _terms_of_run(run: str) -> Iterator[tuple[str, float]]:
    chunks = _CHUNK.findall(run)
    for chunk in [c for c in chunks if not _is_grammar(c)] or chunks:
        if len(chunk) == 1:
            yield f"{_code(chunk)}:*", 1.0
            continue
        pairs = list(_pairs(chunk[:LONGEST_WORD]))
        yield " <-> ".join(pairs), 0.5 if _HIRAGANA_ONLY.fullmatch(chunk) else 1.0
        if len(chunk) > 3 and _HAN_ONLY.fullmatch(chunk):
            # A long compound (人工知能技術) is often written in another way where it is explained
            # (人工知能の技術): its pairs count together as much as the whole.
            for pair in pairs:
                yield pair, 1.0 / len(pairs)


def _is_grammar(chunk: str) -> bool:
    """Say whether a chunk is a particle or an ending, found everywhere and telling nothing."""
    return bool(_HIRAGANA_ONLY.fullmatch(chunk)) and (
        len(chunk) < 3 or chunk in _JAPANESE_STOP_WORDS
    )


def _pairs(run: str) -> Iterator[str]:
    for first, second in pairwise(run):
        yield _code(first + second)


def _code(characters: str) -> str:
    """Return one to two characters as an ASCII word, of one width for each.

    The parser asks the locale of the database what a letter is, and not all know kana and the
    prolonged sound mark; an ASCII word with digits is the same word to all of them, and no
    dictionary changes it.
    """
    return "z" + "".join(f"{ord(c):05x}" for c in characters)

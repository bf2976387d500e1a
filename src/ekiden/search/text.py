"""Plain text: cleaned, guessed at, and the part of it that answers a question."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice

SNIPPET = 500  # characters

_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufeff\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
_SENTENCE_START = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_JAPANESE = re.compile("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_WORD = re.compile(
    "[\u30a1-\u30fa\u30fc]+|[\u3005\u3400-\u4dbf\u4e00-\u9fff]+|[\u3041-\u309f]{3,}|[^\\W\u3041-\u9fff]+"
)
# Found everywhere, so they say nothing about where to look.
_EVERYWHERE = frozenset(
    {
        *("a", "about", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for"),
        *("from", "has", "have", "how", "in", "is", "it", "its", "of", "on", "or", "that", "the"),
        *("this", "to", "was", "what", "when", "where", "which", "who", "why", "will", "with"),
    }
)
_MOST_WORDS = 32
_MOST_MATCHES = 200
_LEAD = 80  # characters kept before a match when no sentence begins near it


def clean(text: str) -> str:
    """Return the text as one line, without control characters and lone surrogates."""
    return _SPACE.sub(" ", _UNWANTED.sub("", text)).strip()


def guess_language(text: str) -> str:
    """Return ``ja`` for Japanese text and ``en`` for all other.

    A few Japanese names do not make an English text Japanese, so one letter in ten must be.
    """
    letters = sum(map(str.isalpha, text))
    return "ja" if letters and len(_JAPANESE.findall(text)) * 10 >= letters else "en"


def best_passage(text: str, query: str, limit: int = SNIPPET) -> str:
    """Return the piece of a text that has most of the words of a question, as plain text.

    It begins where a sentence begins when it can, and says with an ellipsis where it was cut.
    """
    text = clean(text)
    if len(text) <= limit:
        return text
    matches = _matches(text, query)
    sentences = [0, *(found.end() for found in _SENTENCE_START.finditer(text))]
    starts = {0, *(_start_for(text, at, sentences, limit) for at, _ in matches)}

    def worth(piece: tuple[int, int]) -> tuple[int, int, int]:
        start, end = piece
        within = [word for at, word in matches if start <= at <= end - len(word)]
        return len(set(within)), len(within), -start

    start, end = max((_piece(text, start, limit) for start in starts), key=worth)
    return ("… " if start else "") + text[start:end].rstrip() + (" …" if end < len(text) else "")


def _matches(text: str, query: str) -> list[tuple[int, str]]:
    """Return where which words of the question are."""
    wanted = set()
    words = [w for w in dict.fromkeys(_WORD.findall(query.lower())) if w not in _EVERYWHERE]
    for word in words[:_MOST_WORDS]:
        if _JAPANESE.match(word) or len(word) < 4:
            wanted.add(word[:64])
        else:
            # Endings differ (relay, relays, relaying): the beginning is enough to find the place.
            wanted.add(word[: max(4, len(word) - 3)][:64])
    if not wanted:
        return []
    pattern = "|".join(
        re.escape(w) if _JAPANESE.match(w) else rf"\b{re.escape(w)}" + (r"\b" if len(w) < 4 else "")
        for w in sorted(wanted, key=lambda w: (-len(w), w))
    )
    found = islice(re.finditer(pattern, text, re.IGNORECASE), _MOST_MATCHES)
    return [(match.start(), match[0].lower()) for match in found]


def _start_for(text: str, at: int, sentences: list[int], limit: int) -> int:
    """Return where a passage that shows the place ``at`` begins."""
    sentence = sentences[bisect_right(sentences, at) - 1]
    if at - sentence <= limit // 3:
        return sentence
    lead = at - min(_LEAD, limit // 3)
    space = text.find(" ", lead, at)
    return lead if space < 0 else space + 1


def _piece(text: str, start: int, limit: int) -> tuple[int, int]:
    """Return from where to where the passage goes that begins here."""
    start = min(start, max(0, len(text) - limit // 2))  # never just the last few words
    room = limit - (2 if start else 0)
    if len(text) - start <= room:
        return start, len(text)
    end = start + room - 2
    sentences = [found.start() for found in _SENTENCE_START.finditer(text, start, end)]
    if sentences and sentences[-1] - start > limit // 2:
        return start, sentences[-1]
    space = text.rfind(" ", start + limit * 3 // 4, end)
    return start, end if space < 0 else space

"""Text as the flow keeps it: bounded, clean, and measured the way a platform measures it.

Everything a model or a web page wrote passes through these types. Control characters are dropped
here, because PostgreSQL refuses U+0000 and no person can see the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

# C0 and C1 controls, zero-width and direction marks: invisible, and a way to hide text
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]"
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*(?=\s|$)|[。！？][」』)）]*")
_LINK = re.compile(r"https?:|www\.|\]\(", re.IGNORECASE)
_MARKUP = re.compile(
    r"\{\{|\{#|</|<\w+ \w+=|<(?:img|br|p|small|data)\b|&\w+;"
    # "[Your name]": a gap left for somebody else to fill in
    r"|\{\w+\}|\[(?:insert|your|user|blog|name|date|day|link|post|image|add)\b[^\]]*\]|\[\w+_\w+\]",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def one_line(value: Any) -> Any:
    """Drop what cannot be seen, and make any run of white space one space."""
    return " ".join(visible(value).split()) if isinstance(value, str) else value


def lines(value: Any) -> Any:
    """Drop what cannot be seen; keep line breaks, at most one blank line in a row."""
    if not isinstance(value, str):
        return value
    text = visible(value.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def visible(text: str) -> str:
    """Drop control characters and invisible marks."""
    return _INVISIBLE.sub("", text)


def whole(text: str, limit: int) -> str:
    """Take back to its last whole sentence or word a text that was cut off at ``limit``.

    A model that is held to a schema stops at exactly ``maxLength``, in the middle of a word. Any
    other text is returned as it is; so is one where nothing sensible would be left.
    """
    if len(text) != limit or _SENTENCE_END.search(text[-2:]):
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if ends and ends[-1] >= limit // 3:
        return text[: ends[-1]]
    head, _, _ = text.rpartition(" ")
    return head.rstrip(" ,;:-–—") if len(head) >= limit // 3 else text


def said(limit: int, tidy: Callable[[Any], Any] = one_line) -> BeforeValidator:
    """Return the validator of a text that a model may have been cut off in."""
    return BeforeValidator(
        lambda value: tidy(whole(value, limit) if isinstance(value, str) else value)
    )


def says_something(text: str) -> bool:
    """Whether there is at least a letter or a digit in it, of any script."""
    return any(character.isalnum() for character in text)


def is_code(text: str) -> bool:
    """Whether a text is mostly digits and signs, as when a small model drifts into code."""
    letters = sum(character.isalpha() or character.isspace() for character in text)
    return len(text) >= 12 and letters < 0.65 * len(text)


def has_link(text: str) -> bool:
    """Whether a text carries a link. Sources are attached by code, so a model's link is a guess."""
    return _LINK.search(text) is not None


def has_markup(text: str) -> bool:
    """Whether a text carries tags or the gaps of a template, which no reader should see."""
    return _MARKUP.search(text) is not None


def echoes(text: str, told: str) -> bool:
    """Whether a text hands back a stretch of what the model was told to do.

    About six words are a stretch: fewer are found in any honest sentence.
    """
    labels = [line.casefold() for line in told.splitlines() if line.endswith((":", "："))]
    if any(text.casefold().startswith(label) for label in labels):
        return True
    said = _letters(text)
    size = 28 if text.isascii() else 16  # Japanese says as much in fewer characters
    return any(
        len(line) >= 20
        and len(said) >= 12
        and any(said[start : start + size] in line for start in range(max(1, len(said) - size + 1)))
        for line in map(_letters, told.splitlines())
    )


def runs_in_circles(text: str) -> bool:
    """Whether a text only repeats itself, as a small model does when it has lost the thread."""
    words = [word.casefold() for word in _WORD.findall(text)]
    return len(words) >= 12 and len(set(words)) < 0.4 * len(words)


def same(one: str, other: str) -> bool:
    """Whether two texts are the same to a reader: letters and digits only, any case."""
    return _letters(one) == _letters(other)


def _letters(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def weighted_length(text: str) -> int:
    """Length as X counts it: Latin letters and common signs 1, everything else 2."""
    return sum(
        1 if ord(c) <= 4351 or 8192 <= ord(c) <= 8205 or 8208 <= ord(c) <= 8223 else 2
        for c in unicodedata.normalize("NFC", text)
    )


# What is stored and may be edited by a person: roomy.
Label = Annotated[str, StringConstraints(min_length=1, max_length=160), BeforeValidator(one_line)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=400), BeforeValidator(one_line)]
Passage = Annotated[str, StringConstraints(min_length=1, max_length=1200), BeforeValidator(lines)]
Hashtag = Annotated[
    str, StringConstraints(pattern=r"^#[^\s#]+$", max_length=48), BeforeValidator(one_line)
]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z][0-9]{1,2}$", max_length=3)]

# What a model is asked for: tight, so that even a very small one comes to an end in time.


def _prose(least: int, most: int, first: str = "A-Za-z0-9") -> Any:
    """Show a model that is held to the schema a pattern of plain prose: no brackets, no markup.

    It is shown and not enforced. A small model that drifts into code or timestamps cannot do so
    under it; a large one that puts a word into quotation marks has done nothing wrong.
    """
    signs = " ,.!?'():;%$&+-"
    pattern = f"^[{first}¡-\U0010ffff][A-Za-z0-9¡-\U0010ffff{signs}]{{{least - 1},{most - 1}}}$"
    return Field(min_length=least, max_length=most, json_schema_extra={"pattern": pattern})


SaidLabel = Annotated[str, _prose(4, 80), said(80)]
SaidPoint = Annotated[str, _prose(4, 100, first="A-Za-z"), said(100)]
SaidLine = Annotated[str, _prose(8, 140, first="A-Za-z"), said(140)]
SaidPassage = Annotated[str, _prose(12, 240, first="A-Za-z"), said(240)]
# Letters of English and Japanese; a class that a grammar can be made of. Starts with a letter.
SaidHashtag = Annotated[
    str,
    StringConstraints(
        pattern=r"^#[A-Za-zぁ-んァ-ヶー一-龠々][A-Za-z0-9ぁ-んァ-ヶー一-龠々]{1,23}$", max_length=25
    ),
]

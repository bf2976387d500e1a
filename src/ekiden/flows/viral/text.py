"""Text as the flow keeps it: bounded, clean, and measured the way a platform measures it.

Everything a model or a web page wrote passes through these types. Control characters are dropped
here, because PostgreSQL refuses U+0000 and no person can see the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
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

    A model that is held to ``prose`` stops exactly there, in the middle of a word. Any other text
    is returned as it is; so is one where nothing sensible would be left.
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
    return len(text) >= 12 and text[0] != "#" and letters < 0.55 * len(text)


def has_link(text: str) -> bool:
    """Whether a text carries a link. Sources are attached by code, so a model's link is a guess."""
    return _LINK.search(text) is not None


def has_markup(text: str) -> bool:
    """Whether a text carries tags or the gaps of a template, which no reader should see."""
    return _MARKUP.search(text) is not None


def echoes(text: str, told: str) -> bool:
    """Whether a text hands back a stretch of what the model was told to do.

    About eight words are a stretch: fewer are found in any honest sentence.
    """
    labels = [line.casefold() for line in told.splitlines() if line.endswith((":", "："))]
    if any(text.casefold().startswith(label) for label in labels):
        return True
    said = _letters(text)
    size = min(len(said), 40 if text.isascii() else 20)  # Japanese says as much in fewer
    if size < (20 if text.isascii() else 10):
        return False
    stretches = {said[start : start + size] for start in range(len(said) - size + 1)}
    return any(
        stretch in line for line in map(_letters, told.splitlines()) for stretch in stretches
    )


def runs_in_circles(text: str) -> bool:
    """Whether a text only repeats itself, as a small model does when it has lost the thread."""
    words = [word.casefold() for word in _WORD.findall(text)]
    return len(words) >= 12 and len(set(words)) < 0.4 * len(words)


def same(one: str, other: str) -> bool:
    """Whether two texts are the same to a reader: letters and digits only, any case."""
    return _letters(one) == _letters(other)


def distinct(texts: Iterable[str]) -> list[str]:
    """Return the texts without those that read the same as an earlier one, in order."""
    kept: list[str] = []
    for text in texts:
        if says_something(text) and not any(same(text, other) for other in kept):
            kept.append(text)
    return kept


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


def prose(least: int, most: int) -> Any:
    """Show a model that is held to the schema a pattern of plain prose; enforce only the bounds.

    Under the pattern a small model cannot drift into code, markup or timestamps, and stops at
    ``most``. A large one that puts a word into quotation marks, or writes a little more, has done
    nothing wrong, and its paid answer is not thrown away for it.
    """
    letters, signs = "A-Za-z¡-\U0010ffff", "0-9 ,.!?'();%$&+-"
    pattern = f"^[{letters}][{letters}{signs}]{{{least - 1},{most - 1}}}$"
    return Field(min_length=2, max_length=2 * most, json_schema_extra={"pattern": pattern})


SaidLabel = Annotated[str, prose(4, 80), said(80)]
SaidPoint = Annotated[str, prose(4, 100), said(100)]
SaidLine = Annotated[str, prose(8, 140), said(140)]
SaidPassage = Annotated[str, prose(12, 240), said(240)]
# Letters of English and Japanese; a class that a grammar can be made of. Starts with a letter.
SaidHashtag = Annotated[
    str,
    StringConstraints(
        pattern=r"^#[A-Za-zぁ-んァ-ヶー一-龠々][A-Za-z0-9ぁ-んァ-ヶー一-龠々]{1,23}$", max_length=25
    ),
]

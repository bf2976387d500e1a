"""Text of models and strangers as HTML: escaped, its invisible characters shown, folded when long.

Nothing in it is ever markup, and no address in it becomes a link. A character that a reader cannot
see can turn a line around or hide half of it, and a person decides on what they see.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

SHOWN = 1200  # characters before a text is folded
MOST = 20_000  # characters that a page carries of one text; the raw output has the rest

# Controls but tab and line feed, format characters (direction, zero width, tags), odd separators,
# surrogates, private use. Joiners and variation selectors are judged by what stands beside them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_JOINER = "\u200d"
_PARTS_OF_EMOJI = "\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


def visible(text: object) -> Markup:
    """Return text as HTML in which every character can be seen."""
    return Markup("").join(_pieces(str(text)))


def plain(text: object) -> str:
    """Return text with its hidden characters as ``[U+202E]``, for attributes and titles."""
    return _HIDDEN.sub(lambda m: f"[{_code(m[0])}]", str(text))


def _pieces(text: str) -> list[Markup]:
    pieces: list[Markup] = []
    done = 0
    for match in _HIDDEN.finditer(text):
        if match[0] == _JOINER and _joins_emoji(text, match.start()):
            continue
        pieces.append(escape(text[done : match.start()]))
        code = _code(match[0])
        name = unicodedata.name(match[0], "a control character")
        pieces.append(
            Markup('<span class="hidden-char" title="{}">{}</span>').format(f"{code} {name}", code)
        )
        done = match.end()
    pieces.append(escape(text[done:]))
    return pieces


def _joins_emoji(text: str, at: int) -> bool:
    """Whether the joiner stands between two pictures, as in a family or a flag."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    return _is_picture(before) and _is_picture(after)


def _is_picture(character: str) -> bool:
    return bool(character) and (
        character in _PARTS_OF_EMOJI or unicodedata.category(character) == "So"
    )


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def folded(text: str) -> tuple[Markup, Markup | None, int]:
    """Return what is shown of a text, what is folded away, and how long the text is.

    What lies beyond ``MOST`` is in neither; the length tells.
    """
    if len(text) <= SHOWN + SHOWN // 4:  # folding a few words away helps nobody
        return visible(text), None, len(text)
    cut = max(text.rfind(" ", SHOWN // 2, SHOWN), text.rfind("\n", SHOWN // 2, SHOWN))
    cut = cut if cut > 0 else SHOWN
    return visible(text[:cut]), visible(text[cut:MOST]), len(text)

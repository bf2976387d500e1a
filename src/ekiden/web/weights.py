"""The length of a post as X counts it.

After the published configuration ``v3`` of twitter-text (twitter/twitter-text, ``config/v3.json``):
a scale of 100, a default weight of 200, the four ranges below at 100, an address at 23 whatever
its length, an emoji at 200 however many code points it is made of, the text in NFC. An address is
known by its ``http://`` or ``https://`` here.
"""

from __future__ import annotations

import re
import unicodedata

LIMIT = 280
_ADDRESS = 23
_SINGLE = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))
_PICTURE = (
    "(?:[\U0001f1e6-\U0001f1ff]{2}"  # a flag is two letters
    "|[0-9#*]\ufe0f?\u20e3"  # a keycap
    "|[\u00a9\u00ae]\ufe0f"
    "|[\u203c-\u27bf\u2934-\u2b55\U0001f000-\U0001faff]\ufe0f?[\U0001f3fb-\U0001f3ff]?"
    "[\U000e0020-\U000e007f]*)"
)
_UNIT = re.compile(
    "(?P<address>https?://[^\\s\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]+)"
    f"|(?P<emoji>{_PICTURE}(?:\u200d{_PICTURE})*)"
    "|.",
    re.IGNORECASE | re.DOTALL,
)


def weighted_length(text: str) -> int:
    """Return the length of a text as X counts it; ``LIMIT`` is the most a post may have."""
    return sum(_weight(unit) for unit in _UNIT.finditer(unicodedata.normalize("NFC", text)))


def _weight(unit: re.Match[str]) -> int:
    if unit.lastgroup == "address":
        return _ADDRESS
    if unit.lastgroup == "emoji":
        return 2
    return 1 if any(low <= ord(unit[0]) <= high for low, high in _SINGLE) else 2

"""What each platform allows and what reads well on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ekiden.flows.viral.text import weighted_length

PlatformName = Literal["X", "Instagram", "LinkedIn", "Threads", "TikTok", "Facebook", "Bluesky"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The rules of one platform."""

    limit: int  # the longest post, hashtags included, in the platform's own count
    aim: int  # the length, in English characters, that people read to the end
    paragraphs: int  # how many read well, at most
    hashtags: int  # how many look natural
    weighted: bool = False  # counts a Japanese character as two

    def length(self, text: str) -> int:
        """Return the length of a text as this platform counts it."""
        return weighted_length(text) if self.weighted else len(text)

    def aim_in(self, language: str) -> int:
        """Return the length to aim at; Japanese says the same in half the characters."""
        return self.aim // 2 if language == "ja" else self.aim

    def most_in(self, language: str) -> int:
        """Return the most characters of a post's text, leaving room for at least one hashtag."""
        room = self.limit - 40
        return min(room // 2 if self.weighted and language == "ja" else room, 2 * self.aim)


PLATFORMS: dict[PlatformName, Platform] = {
    "X": Platform(limit=280, aim=200, paragraphs=2, hashtags=2, weighted=True),
    "Instagram": Platform(limit=2200, aim=500, paragraphs=4, hashtags=3),
    "LinkedIn": Platform(limit=3000, aim=700, paragraphs=6, hashtags=3),
    "Threads": Platform(limit=500, aim=280, paragraphs=3, hashtags=1),
    "TikTok": Platform(limit=2200, aim=220, paragraphs=3, hashtags=3),
    "Facebook": Platform(limit=5000, aim=400, paragraphs=4, hashtags=2),
    "Bluesky": Platform(limit=300, aim=200, paragraphs=2, hashtags=2),
}

if set(PLATFORMS) != set(get_args(PlatformName)):  # a platform without rules cannot be chosen
    raise AssertionError("PLATFORMS and PlatformName do not name the same platforms")


def with_hashtags(platform: Platform, text: str, hashtags: list[str]) -> str:
    """Return the post as it is pasted: the text, then every hashtag that still fits."""
    said = text.casefold()
    line = ""
    for tag in hashtags:
        longer = f"{line} {tag}".strip()
        if tag.casefold() not in said and platform.length(f"{text}\n\n{longer}") <= platform.limit:
            line = longer
    return f"{text}\n\n{line}" if line else text

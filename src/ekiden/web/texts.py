"""What the pages say, in every language they speak: ``texts.toml``, read once."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

LANGUAGES = {"en": "English", "ja": "日本語"}  # code → its own name; the first is the default
_OFFERED = re.compile(r"\s*([a-zA-Z]{1,8})(?:-[a-zA-Z0-9-]+)?\s*(?:;\s*q=([0-9.]+))?\s*")


@cache
def load_texts() -> dict[str, dict[str, str]]:
    """Return every text by ``section.name`` and language."""
    raw = resources.files("ekiden.web").joinpath("texts.toml").read_text("utf-8")
    return {
        f"{section}.{name}": said
        for section, texts in tomllib.loads(raw).items()
        for name, said in texts.items()
    }


@dataclass(frozen=True, slots=True)
class Speech:
    """One language."""

    code: str

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text; ``{name}`` in it is replaced by the value of that name."""
        said = load_texts()[key][self.code]
        return said.format(**values) if values else said

    def maybe(self, key: str, otherwise: str, **values: Any) -> str:
        """Return a text, or ``otherwise`` when there is none of this key."""
        return self(key, **values) if key in load_texts() else otherwise

    def titled(self, phase: dict[str, Any]) -> str:
        """Return the title of a phase, as its flow gives it in this language or at all."""
        return str(phase.get("titles", {}).get(self.code) or phase["title"])


def choose(asked: str | None, kept: str | None, accepted: str) -> Speech:
    """Choose a language: what was asked for now, what was asked for once, what the browser wants.

    Args:
        asked: of the query.
        kept: of the cookie.
        accepted: the Accept-Language header (RFC 9110 §12.5.4), of which the region is ignored.
    """
    for code in (asked, kept):
        if code in LANGUAGES:
            return Speech(code)
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(",")[:20]:
        match = _OFFERED.fullmatch(part)
        if match and match[1].lower() in LANGUAGES:
            wanted.append((-_quality(match[2]), match[1].lower()))
    best = min(wanted, key=lambda pair: pair[0], default=(0.0, next(iter(LANGUAGES))))
    return Speech(best[1])


def _quality(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0

"""A scripted model that the real program asks, for the flow in ``asking``."""

from __future__ import annotations

import json
from typing import Any

from tests.providers.fake_server import answer, chunk, sse

FLOW = ("--flow", "tests.cli.asking:asking")
KEY = "sk-a-secret-that-no-page-shows"


def says(word: str) -> Any:
    """Return the reply that says this word."""
    return answer(sse(chunk(json.dumps({"word": word})), chunk("", finish="stop"), done=True))

"""Drafts as files: Markdown to read, CSV for a spreadsheet, JSON for a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from ekiden.store.drafts import DraftRow
from ekiden.web.shape import post_text

MEDIA_TYPES = {
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}
# What a spreadsheet would take for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(drafts: Sequence[DraftRow], form: str) -> bytes:
    """Return drafts as a file of one of ``MEDIA_TYPES``."""
    if form == "md":
        return _markdown(drafts).encode()
    if form == "csv":
        return _csv(drafts).encode("utf-8-sig")  # the mark tells a spreadsheet that it is UTF-8
    return json.dumps([_record(d) for d in drafts], ensure_ascii=False, indent=2).encode()


def text_of(draft: DraftRow) -> str:
    """Return a draft's text: a post as it is published, anything else as JSON."""
    body = draft.body
    if isinstance(body.get("text"), str):
        return post_text(body)
    return json.dumps(body, ensure_ascii=False, indent=2)


def _markdown(drafts: Sequence[DraftRow]) -> str:
    parts = []
    for draft in drafts:
        fence = "`" * max(3, _longest_run(text := text_of(draft)) + 1)
        parts.append(
            f"## {' '.join(draft.title.split())}\n\n"
            f"- {draft.status} · {draft.flow} · {draft.created_at:%Y-%m-%d %H:%M} UTC\n"
            f"- {' '.join(draft.session_title.split())} ({draft.session_id})\n\n"
            f"{fence}text\n{text}\n{fence}\n"
        )
    return "\n".join(parts)


def _longest_run(text: str) -> int:
    """Return the longest run of backticks: a fence must be longer."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _csv(drafts: Sequence[DraftRow]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("id", "status", "title", "text", "session", "sessionId", "flow", "createdAt"))
    for d in drafts:
        row = (
            d.id, d.status, d.title, text_of(d), d.session_title, d.session_id, d.flow,
            d.created_at.isoformat(),
        )  # fmt: skip
        writer.writerow([_harmless(cell) for cell in row])
    return out.getvalue()


def _harmless(cell: Any) -> str:
    text = str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _record(draft: DraftRow) -> dict[str, Any]:
    return {
        "id": draft.id,
        "status": draft.status,
        "title": draft.title,
        "body": draft.body,
        "sources": draft.sources,
        "sessionId": draft.session_id,
        "session": draft.session_title,
        "flow": draft.flow,
        "createdAt": draft.created_at.isoformat(),
    }

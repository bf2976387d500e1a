"""Drafts as files: Markdown to read, CSV for a spreadsheet, JSON for a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
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


async def export(
    first: Sequence[DraftRow], rest: AsyncIterator[Sequence[DraftRow]], form: str
) -> AsyncIterator[bytes]:
    """Yield drafts, which come page by page, as a file of one of ``MEDIA_TYPES``."""
    begin, one, between, end = _FORMS[form]
    yield begin.encode() + between.join(map(one, first)).encode()
    async for page in rest:
        yield "".join(between + one(draft) for draft in page).encode()
    yield end.encode()


def text_of(draft: DraftRow) -> str:
    """Return a draft's text: a post as it is published, anything else as JSON."""
    body = draft.body
    if isinstance(body.get("text"), str):
        return post_text(body)
    return json.dumps(body, ensure_ascii=False, indent=2)


def _markdown(draft: DraftRow) -> str:
    fence = "`" * max(3, _longest_run(text := text_of(draft)) + 1)
    return (
        f"## {' '.join(draft.title.split())}\n\n"
        f"- {draft.status} · {draft.flow} · {draft.created_at:%Y-%m-%d %H:%M} UTC\n"
        f"- {' '.join(draft.session_title.split())} ({draft.session_id})\n\n"
        f"{fence}text\n{text}\n{fence}\n"
    )


def _longest_run(text: str) -> int:
    """Return the longest run of backticks: a fence must be longer."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _csv(draft: DraftRow) -> str:
    d = draft
    return _line(
        d.id, d.status, d.title, text_of(d), d.session_title, d.session_id, d.flow,
        d.created_at.isoformat(),
    )  # fmt: skip


def _line(*cells: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> str:
    text = str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(draft: DraftRow) -> str:
    record = {
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
    return json.dumps(record, ensure_ascii=False, indent=2)


_BOM = "\ufeff"  # tells a spreadsheet that it is UTF-8
_HEAD = _line("id", "status", "title", "text", "session", "sessionId", "flow", "createdAt")
# What it begins with, a draft, what stands between two, and the end.
_FORMS: dict[str, tuple[str, Callable[[DraftRow], str], str, str]] = {
    "md": ("", _markdown, "\n", ""),
    "csv": (_BOM + _HEAD, _csv, "", ""),
    "json": ("[", _json, ",\n", "]\n"),
}

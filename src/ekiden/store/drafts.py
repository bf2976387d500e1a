"""The board of drafts: what sessions made, on its way out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ekiden.errors import Conflict, NotFound
from ekiden.store.connection import parse_session_id
from ekiden.store.reader import Reader

PAGE = 500  # drafts that are read at once where all are wanted


class DraftState(StrEnum):
    """Where a draft is."""

    DRAFT = "DRAFT"  # as the session made it
    APPROVED = "APPROVED"  # somebody will publish it
    SCHEDULED = "SCHEDULED"  # it has a time
    POSTED = "POSTED"  # it is out
    ARCHIVED = "ARCHIVED"  # nobody will publish it


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRow:
    """One draft with the session it comes from."""

    id: int
    session_id: str
    session_title: str
    flow: str
    generation: int  # of the last phase
    number: int
    title: str
    body: dict[str, Any]
    sources: list[dict[str, Any]]
    status: str
    created_at: datetime
    change: str | None  # what was done last: moved, edited
    changed_by: str | None
    changed_at: datetime | None


class Board(Reader):
    """All drafts. Nobody's change is lost: each says what it was made from."""

    async def find(
        self,
        *,
        status: str | None = None,
        before: int | None = None,
        session_id: str | None = None,
        limit: int | None = None,
    ) -> list[DraftRow]:
        """Return drafts, newest first.

        Args:
            status: only these; None is all that are not archived.
            before: only those with a smaller id.
            session_id: only of this session.
            limit: at most so many; None is all.
        """
        only = parse_session_id(session_id) if session_id else None
        rows = await self._rows("page_drafts", status, before, limit, only)
        return [DraftRow(**row) for row in rows]

    async def pages(self, status: str | None) -> AsyncIterator[list[DraftRow]]:
        """Yield all that ``find`` would return, a page at a time: years of drafts are many."""
        before = None
        while page := await self.find(status=status, before=before, limit=PAGE):
            yield page
            before = page[-1].id

    async def counts(self) -> dict[str, int]:
        """Return how many drafts there are of each status."""
        found = {row["status"]: row["drafts"] for row in await self._rows("page_draft_counts")}
        return {status: found.get(status, 0) for status in DraftState}

    async def move(self, draft: int, to: DraftState, *, seen: DraftState, actor: str) -> None:
        """Give a draft another status, if it still has the one that was ``seen``.

        Raises:
            NotFound: there is no such draft.
            Conflict: somebody moved it meanwhile.
        """
        if await self._rows("move_draft", draft, to, seen, actor):
            return
        now = await self.get(draft)
        if now.status != to:
            raise Conflict(
                f"Draft {draft} is {now.status} by now (moved by {now.changed_by}). Look again.",
                kind="draft", status=now.status, who=now.changed_by,
            )  # fmt: skip

    async def get(self, draft: int) -> DraftRow:
        """Return one draft.

        Raises:
            NotFound: there is none.
        """
        rows = await self._rows("get_draft", draft)
        if not rows:
            raise NotFound(f"There is no draft {draft}.")
        return DraftRow(**rows[0])

    async def edit(
        self, draft: int, *, title: str, body: dict[str, Any], seen: datetime | None, actor: str
    ) -> None:
        """Give a draft another title and body, if nobody changed it since ``seen``. Safe to repeat.

        Raises:
            NotFound: there is no such draft.
            Conflict: somebody changed it meanwhile.
        """
        text = json.dumps(body, ensure_ascii=False)
        if not await self._rows("edit_draft", draft, title, text, seen, actor):
            now = await self.get(draft)
            if (now.title, now.body) != (title, body):
                said = f"Draft {draft} was changed by {now.changed_by}. Look again."
                raise Conflict(said, kind="draft-text")

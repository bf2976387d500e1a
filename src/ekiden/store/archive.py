"""Finished sessions, put away and brought back: one function, whoever asks and for how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from ekiden.errors import Conflict, EkidenError, NotFound
from ekiden.store.connection import parse_session_id, translated
from ekiden.store.queries import sql

MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What became of one session."""

    id: str
    archived: bool  # whether it is put away now
    refused: EkidenError | None = None  # why it is not as it was asked for


class Archive:
    """Puts sessions away."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    async def put(
        self, session_ids: Sequence[str], *, actor: str, back: bool = False, flow: str | None = None
    ) -> list[Put]:
        """Put sessions away, or bring them ``back``. Safe to repeat.

        Args:
            session_ids: at most MOST_AT_ONCE; one that is no id counts as not there.
            actor: who does it.
            back: bring them back instead.
            flow: sessions of other flows count as not there.

        Returns:
            What became of each, in the order they were given in, each once.
        """
        wanted = list(dict.fromkeys(session_ids))[:MOST_AT_ONCE]
        ids = {given: _id_or_none(given) for given in wanted}
        with translated(self._dsn):
            rows = await self._pool.fetch(
                sql("archive_sessions"), sorted({i for i in ids.values() if i}), not back, flow,
                actor,
            )  # fmt: skip
        found = {row["id"]: row for row in rows}
        return [_put(given, found.get(known or ""), back=back) for given, known in ids.items()]

    async def put_one(
        self, session_id: str, *, actor: str, back: bool = False, flow: str | None = None
    ) -> None:
        """Put one session away, or bring it back.

        Raises:
            NotFound: no such session.
            Conflict: it is not finished.
        """
        (done,) = await self.put([session_id], actor=actor, back=back, flow=flow)
        if done.refused is not None:
            raise done.refused


def _put(given: str, row: asyncpg.Record | None, *, back: bool) -> Put:
    if row is None:
        return Put(id=given, archived=False, refused=NotFound(f"There is no session {given}."))
    refused = None
    if row["archived"] == back:
        refused = Conflict(
            f"Session {row['id']} is {row['status']}: only a finished one (COMPLETED, FAILED, "
            "CANCELLED) is archived. Let it end, or cancel it.",
            kind="unfinished",
        )
    return Put(id=row["id"], archived=row["archived"], refused=refused)


def _id_or_none(text: str) -> str | None:
    try:
        return parse_session_id(text)
    except NotFound:
        return None

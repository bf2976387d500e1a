"""What clients were told, and whether it still holds at the end.

Steps and answers have a witness of their own, the ``Observer``; this one is for what people did.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncpg


@dataclass
class Witness:
    """What was acknowledged."""

    sessions: set[str] = field(default_factory=set)  # told that they are created
    gates: dict[tuple[str, int], int] = field(default_factory=dict)  # (session, phase) passed
    cancelled: set[str] = field(default_factory=set)

    def passed(self, session: str, phase: int, times: int = 1) -> None:
        """Note how often somebody was told that he passed a gate."""
        self.gates[session, phase] = self.gates.get((session, phase), 0) + times

    async def broken(self, pool: asyncpg.Pool) -> dict[str, list[str]]:
        """Return what was acknowledged and is not so, by kind."""
        rows = await pool.fetch("SELECT id::text, status FROM ekiden.sessions")
        status = {row["id"]: row["status"] for row in rows}
        rows = await pool.fetch("SELECT session_id::text, phase FROM ekiden.reviews")
        reviews = {(row["session_id"], row["phase"]) for row in rows}
        return {
            "acknowledged sessions lost": sorted(self.sessions - status.keys()),
            "acknowledged approvals lost": [f"{s}/{p}" for s, p in self.gates.keys() - reviews],
            "acknowledged cancels lost": [
                session for session in self.cancelled if status.get(session) != "CANCELLED"
            ],
            "gates told passed twice": [f"{k[0]}/{k[1]}" for k, n in self.gates.items() if n > 1],
        }

"""More of what a flow makes than a test could wait for."""

from __future__ import annotations

import asyncpg

_DRAFTS = """
INSERT INTO ekiden.drafts (session_id, generation, number, title, body, sources)
SELECT session_id, generation, n, title, body, sources
FROM (SELECT * FROM ekiden.drafts ORDER BY id DESC LIMIT 1) AS newest,
     generate_series(number + 1, $1) AS n
"""


async def fill_up_drafts(pool: asyncpg.Pool, count: int) -> None:
    """Give the session that was completed last so many drafts, like its last one."""
    await pool.execute(_DRAFTS, count)

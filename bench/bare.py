"""The bare durable commit, and the least that is still a hand-off."""

from __future__ import annotations

import time

from ekiden.store.connection import connect

BARE_TABLE = "CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, result json)"
BARE_COMMIT = "INSERT INTO bare (result) VALUES ($1::json)"
# The least that is still a hand-off: a result stored and the next step inserted, nothing else.
BARE_HANDOFF = """
WITH done AS (UPDATE bare SET result = $2::json WHERE id = $1 AND result IS NULL RETURNING id)
INSERT INTO bare (result) SELECT NULL FROM done RETURNING id
"""


class Bare:
    """The least a durable step can cost, on a connection like the worker's."""

    def __init__(self) -> None:
        self.commits: list[float] = []  # milliseconds
        self.handoffs: list[float] = []

    async def prepare(self, dsn: str) -> None:
        self._connection = await connect(dsn)
        await self._connection.execute(BARE_TABLE)
        self._commit = await self._connection.prepare(BARE_COMMIT)
        self._handoff = await self._connection.prepare(BARE_HANDOFF)
        self._last = await self._connection.fetchval(
            "INSERT INTO bare (result) VALUES (NULL) RETURNING id"
        )

    async def run(self, count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await self._commit.fetch('{"ok":true}')
            self.commits.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            self._last = await self._handoff.fetchval(self._last, '{"ok":true}')
            self.handoffs.append((time.perf_counter() - began) * 1000)

    async def close(self) -> None:
        await self._connection.close()

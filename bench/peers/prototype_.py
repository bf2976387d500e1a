"""The limit: batched SQL and nothing else; a row per step; no fence, attempts, events or lease.

Two connections, each committing what ended while the one before was on its way: results stored
and next steps inserted in one statement. Nobody could use it; it says what PostgreSQL and Python
allow.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from time import perf_counter

import asyncpg

from peers import common

PACKAGES = ["asyncpg"]
KEEPS = "a row with the result of each step, and nothing that could rescue it"
PACED = True

_SCHEMA = """
CREATE TABLE steps (id bigserial PRIMARY KEY, session text NOT NULL, number int NOT NULL,
                    claimed boolean NOT NULL DEFAULT false, result json)
WITH (fillfactor = 50);
CREATE INDEX ON steps (id) WHERE NOT claimed;
"""
_CLAIM = """
UPDATE steps SET claimed = true
WHERE id = ANY (ARRAY(SELECT id FROM steps WHERE NOT claimed ORDER BY id LIMIT $1))
RETURNING id, session, number
"""
_HAND_OVER = """
WITH done AS (UPDATE steps SET result = r.result::json
              FROM unnest($1::bigint[], $2::text[]) AS r(id, result)
              WHERE steps.id = r.id RETURNING session, number)
INSERT INTO steps (session, number, claimed)
SELECT session, number + 1, true FROM done WHERE number < $3 RETURNING id, session, number
"""
_RING = "NOTIFY bare"


async def set_up(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SCHEMA)
    await connection.close()


@asynccontextmanager
async def client(dsn: str):
    connection = await asyncpg.connect(dsn)

    async def begin(ids):
        await connection.execute(
            "INSERT INTO steps (session, number) SELECT unnest($1::text[]), 0", ids
        )
        stored_at = perf_counter()
        await connection.execute(_RING)
        return stored_at

    yield begin
    await connection.close()


class Lane:
    """Commits what ended since its last commit, and begins what follows."""

    def __init__(self, ended) -> None:
        self._sessions_ended = ended
        self._ended: list[int] = []
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def run(self, steps) -> None:
        for id_, session, _ in steps:
            if common.pause:
                running = asyncio.create_task(self._take_time(id_, session))
                self._running.add(running)
                running.add_done_callback(self._running.discard)
            else:
                common.mark(session)
                self._ended.append(id_)
        self._wake.set()

    async def _take_time(self, id_: int, session: str) -> None:
        await common.step(session)
        self._ended.append(id_)
        self._wake.set()

    async def commit(self, dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        hand_over = await connection.prepare(_HAND_OVER)
        while True:
            await self._wake.wait()
            self._wake.clear()
            some, self._ended = self._ended[:128], self._ended[128:]
            if self._ended:
                self._wake.set()
            if some:
                following = await hand_over.fetch(
                    some, ['{"ok":true}'] * len(some), common.STEPS - 1
                )
                self.run(following)
                if len(following) < len(some):
                    self._sessions_ended(len(some) - len(following))


@asynccontextmanager
async def worker(dsn: str, at_once: int):
    free = at_once
    rung = asyncio.Event()
    rung.set()

    def ended(count: int) -> None:
        nonlocal free
        free += count
        rung.set()

    lanes = [Lane(ended), Lane(ended)]
    connection = await asyncpg.connect(dsn)
    await connection.add_listener("bare", lambda *_: rung.set())

    async def claim() -> None:
        nonlocal free
        claimer = await asyncpg.connect(dsn)
        while True:
            await rung.wait()
            rung.clear()
            claimed = await claimer.fetch(_CLAIM, free)
            free -= len(claimed)
            for n, lane in enumerate(lanes):
                if mine := claimed[n::2]:
                    lane.run(mine)

    tasks = [asyncio.create_task(lane.commit(dsn)) for lane in lanes]
    tasks.append(asyncio.create_task(claim()))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.close()


if __name__ == "__main__":
    common.main(sys.modules[__name__])

"""Connections are cut, each kind of them, and networks lose what was on its way."""

from __future__ import annotations

import asyncio

import pytest

from tests.recovery.load import Heard, all_completed, begin, control, outcomes, squares
from tests.worker.relay import House, working

KINDS = {
    "commit lane": "query LIKE 'WITH done AS%'",
    "listener": "query LIKE '%LISTEN%'",
    "pool": "query NOT LIKE 'WITH done AS%' AND query NOT LIKE '%LISTEN%'",
}
CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'ekiden' AND """


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_cut_again_and_again_lose_nothing(
    house: House, heard: Heard, kind: str
) -> None:
    async with working(house.dsn, squares(), capacity=8), control(house.dsn) as connection:
        sessions = await begin(house, 20)
        cut = 0
        for _ in range(15):
            cut += await connection.fetchval(CUT + KINDS[kind])
            await asyncio.sleep(0.04)
        assert cut >= 3
        await all_completed(house, sessions)
    assert heard.count("attempt_failed") == 0
    assert set(await outcomes(house)) <= {"COMPLETED", "RELEASED"}

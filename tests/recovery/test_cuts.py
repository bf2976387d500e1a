"""Connections are cut, each kind of them, and networks lose what was on its way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ekiden.store.tasks import Handed, Handoff
from ekiden.worker import committer
from tests.recovery.cutter import HOWS, Cutter
from tests.recovery.load import (
    Heard,
    all_completed,
    begin,
    control,
    eventually,
    outcomes,
    some_are_done,
    squares,
)
from tests.worker.relay import House, working
from tests.worker.test_death import committing, completion

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
        cut = rounds = 0
        while rounds < 15 or cut < 3:  # on a busy machine what was cut takes a while to be back
            cut += await connection.fetchval(CUT + KINDS[kind])
            rounds += 1
            await asyncio.sleep(0.04)
        await all_completed(house, sessions)
    assert heard.count("attempt_failed") == 0
    assert set(await outcomes(house)) <= {"COMPLETED", "RELEASED"}


@pytest.mark.parametrize("how", HOWS)
async def test_a_commit_lost_on_its_way_is_settled_by_its_token(
    house: House, heard: Heard, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(committer, "ANSWER", 0.5)
    async with Cutter(house.dsn).open() as cutter, working(cutter.dsn, squares(), capacity=8):
        sessions = await begin(house)
        await some_are_done(house)
        cutter.how = how
        await eventually(lambda: cutter.lost >= 6, "six lost commits")
        cutter.how = None
        await all_completed(house, sessions)
    assert heard.count("database_lost") >= 6
    assert heard.count("database_back") >= 1
    assert heard.count("attempt_refused") == 0  # nobody took his own commit for a stranger's
    assert await outcomes(house) == {"COMPLETED": 12 * 7}


async def test_what_follows_a_commit_whose_chain_was_stopped_is_given_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit goes through and hands on, but there is nobody to go on: others must."""
    complete = Handoff.complete

    async def complete_and_stop(*arguments: Any) -> Handed:
        handed = await complete(*arguments)
        after.cancel()
        return handed

    monkeypatch.setattr(Handoff, "complete", complete_and_stop)
    async with committing(house) as (lanes, (one, two, _)):
        after = lanes.submit(completion(one))
        before = lanes.submit(completion(two))
        before.cancel()
        await asyncio.wait([after, before])
    for task in (one, two):
        states = [(step, status) for _, step, _, status, _ in await house.steps(task.session_id)]
        assert states == [("THINK", "COMPLETED"), ("INTEGRATE", "QUEUED")]

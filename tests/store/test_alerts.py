"""What is over, where not all that ended is counted yet."""

from __future__ import annotations

import pytest

from ekiden.core.alerts import Limits
from ekiden.store.alerts import Alerts
from ekiden.store.errands import Errands
from ekiden.store.metrics import Metrics
from tests.store.helpers import FLOW, Relay, second
from tests.store.test_plans import analyze, fill, plan_of, scanned_whole

RAISED = """
INSERT INTO ekiden.alerts (kind, subject, flow, value, threshold)
VALUES ('error_rate', $1, $1, 0.5, 0.25)
"""
ENDED = """
INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
SELECT $1, 1, 1, 'COMPLETED', now() - $2::int * interval '1 min', now() - $2 * interval '1 min'
"""
COUNTED_TO = "UPDATE ekiden.metric_watermark SET rolled_to = now() - $1::int * interval '1 min'"


async def over(relay: Relay) -> int:
    looked = await Alerts(relay.pool, relay.dsn).look(Limits())
    assert looked is not None
    return len(looked.resolved)


@pytest.fixture
async def alert(relay: Relay) -> None:
    """An error rate that is too high, and somebody who is told."""
    await relay.pool.execute(RAISED, FLOW)
    errands = Errands(relay.pool, relay.dsn)
    await errands.add_webhook("http://127.0.0.1:1/", "whsec_eA==", ["alert.resolved"])


@pytest.mark.usefixtures("alert")
async def test_an_error_rate_is_not_over_while_counting_is_held_up(relay: Relay):
    task = await relay.started()
    await relay.pool.execute(ENDED, task.id, 5)
    await relay.pool.execute(COUNTED_TO, 10)
    assert await over(relay) == 0
    while await Metrics(relay.pool, relay.dsn).roll_up():
        pass
    assert await over(relay) == 1


@pytest.mark.usefixtures("alert")
@pytest.mark.parametrize("minutes", [1, 16])  # it may not be counted yet; it would be in no rate
async def test_an_error_rate_is_over_when_nothing_is_left_to_count(relay: Relay, minutes: int):
    task = await relay.started()
    await relay.pool.execute(ENDED, task.id, minutes)
    await relay.pool.execute(COUNTED_TO, 20)
    assert await over(relay) == 1


async def test_what_is_not_counted_yet_is_found_without_reading_what_was(relay: Relay):
    await fill(relay)
    await relay.connection.execute(
        "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)"
        " SELECT n, 1, 1, 'COMPLETED', now() - interval '1 h', now() - interval '1 h'"
        " FROM generate_series(1000000, 1200000) n"
    )
    await relay.connection.execute("VACUUM (ANALYZE) ekiden.attempts")
    await analyze(relay)
    async with second(relay.dsn) as connection:
        nodes = await plan_of(connection, "read_uncounted", "'15 min', '3 min'")
    assert "attempts" not in scanned_whole(nodes)

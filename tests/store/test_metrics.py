"""What is counted is what was: nothing missed, nothing twice, and history is not read for it."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from ekiden.core.histogram import GROWTH, PERCENTILE_ERROR, bucket_of
from ekiden.core.metrics import Fact, Measure, Window, calls
from ekiden.core.model import Budget, Review, Verb
from ekiden.store import metrics as module
from ekiden.store.connection import APPLICATION
from ekiden.store.metrics import Metrics
from tests.store.helpers import ERROR, Relay, advance, finish, second
from tests.store.test_plans import analyze, fill, indexes, plan_of, scanned_whole

_NO_TIME = timedelta(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count what has just ended."""
    monkeypatch.setattr(module, "MARGIN", _NO_TIME)


async def counted(relay: Relay) -> list[Fact]:
    metrics = Metrics(relay.pool, relay.dsn)
    while await metrics.roll_up():
        pass
    return (await metrics.past(Window.H1)).facts


def count(facts: list[Fact], measure: Measure, **where: Any) -> int:
    return sum(
        f.n
        for f in facts
        if f.measure == measure and all(getattr(f, key) == value for key, value in where.items())
    )


async def test_attempts_waits_and_steps_are_counted_once(relay: Relay):
    execute = await relay.executing(3)
    await relay.tasks.retry(execute[0], ERROR, _NO_TIME)
    facts = await counted(relay)
    assert count(facts, Measure.ATTEMPT, step="THINK", outcome="COMPLETED") == 1
    assert count(facts, Measure.ATTEMPT, outcome="RETRIED", error=ERROR.kind) == 1
    assert count(facts, Measure.STEP) == 1  # THINK; EXECUTE is open
    (again,) = await relay.claim(execute[0].session_id)
    await relay.complete(advance(again), advance(execute[1]))
    assert count(await counted(relay), Measure.STEP) == 1
    await relay.complete(advance(execute[2]))
    facts = await counted(relay)
    assert count(facts, Measure.STEP, step="EXECUTE") == 1
    assert count(facts, Measure.ATTEMPT) == 5 == count(facts, Measure.WAIT)
    assert await counted(relay) == facts  # looked at again, not counted again


async def test_minutes_hours_days_and_ever_have_the_same_sums(relay: Relay):
    await relay.executing(2)
    await counted(relay)
    sums = await relay.rows(
        "SELECT width, sum(n), sum(seconds) FROM ekiden.metric_rollups GROUP BY width"
    )
    assert len(sums) == 4
    assert len({n for _, n, _ in sums}) == 1
    assert [s for *_, s in sums] == pytest.approx([sums[0][2]] * 4)


async def test_the_buckets_of_sql_are_those_of_python(relay: Relay):
    chance = random.Random(7)
    lengths = [0.0, 0.001, 0.0011, 1.0, 86_400.0]
    lengths += [round(10 ** chance.uniform(-4, 5), 6) for _ in range(200)]
    task = await relay.started()
    await relay.connection.executemany(
        "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)"
        " VALUES ($1, $2, 1, 'RETRIED', now() - $3::interval, now())",
        [(task.id, 100 + n, timedelta(seconds=s)) for n, s in enumerate(lengths)],
    )
    facts = [f for f in await counted(relay) if f.measure == Measure.ATTEMPT]
    found = sorted(f.bucket for f in facts for _ in range(f.n))
    assert found == sorted(bucket_of(s) for s in lengths)
    assert sum(f.seconds for f in facts) == pytest.approx(sum(lengths))


async def test_what_commits_late_is_not_missed(relay: Relay):
    """A transaction that began before the roll-up and commits after it bears the earlier time."""
    first, other = await relay.started(), await relay.started()
    async with second(relay.dsn, {"application_name": APPLICATION}) as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(
            "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at,"
            " finished_at) SELECT $1, 1, 1, 'RELEASED', now(), ekiden.now()",
            first.id,
        )
        await relay.tasks.release(other)
        assert count(await counted(relay), Measure.ATTEMPT) == 0  # nothing later is counted yet
        await transaction.commit()
    assert count(await counted(relay), Measure.ATTEMPT) == 2


async def test_many_may_count_at_once(relay: Relay):
    execute = await relay.executing(12)
    metrics = Metrics(relay.pool, relay.dsn)
    for task in execute:
        await asyncio.gather(relay.complete(advance(task)), *(metrics.roll_up() for _ in range(4)))
    facts = await counted(relay)
    assert count(facts, Measure.ATTEMPT) == 13
    assert count(facts, Measure.STEP, step="EXECUTE") == 1


async def test_a_step_that_goes_on_without_an_item_is_closed_by_giving_it_up(relay: Relay):
    one, other = await relay.executing(2)
    await relay.complete(advance(one))
    assert count(await counted(relay), Measure.STEP, step="EXECUTE") == 0
    assert await relay.tasks.drop_item(other, ERROR, goes_on_with=0.5)
    facts = await counted(relay)
    assert count(facts, Measure.STEP, step="EXECUTE") == 1
    assert count(facts, Measure.ATTEMPT, outcome="FAILED") == 1


async def test_the_first_token_of_a_streamed_call_is_timed(relay: Relay):
    task = await relay.started()
    await relay.connection.execute(
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,"
        " request_hash, request, answer, outcome, started_at, finished_at, first_token)"
        " SELECT $1, $2, 1, n, 'ask', 'p', 'm', '', '', 'x', 'ANSWERED', now() - interval '4 s',"
        " now(), CASE WHEN n > 1 THEN interval '2 s' END FROM generate_series(1, 3) n",
        task.session_id,
        task.id,
    )
    found = calls(await counted(relay))
    assert (found.time.n, found.first_token.n) == (3, 2)
    assert found.first_token.seconds == pytest.approx(4)
    assert found.first_token.quantile(0.5) == pytest.approx(2, rel=PERCENTILE_ERROR)


async def test_an_error_that_postgres_cannot_read_holds_nothing_up(relay: Relay):
    task = await relay.started()
    await relay.connection.execute(
        "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at,"
        """ finished_at) VALUES ($1, 1, 1, 'FAILED', '{"message": "\\u0000 \\"kind\\":\\"x\\"","""
        """ "kind": "Odd"}', now(), now())""",
        task.id,
    )
    assert count(await counted(relay), Measure.ATTEMPT, error="Odd") == 1


async def test_a_peer_that_has_just_counted_is_trusted(relay: Relay):
    await relay.executing(1)
    metrics = Metrics(relay.pool, relay.dsn)
    while await metrics.roll_up():
        pass
    before = await relay.rows("SELECT rolled_to FROM ekiden.metric_watermark")
    await metrics.roll_up(older_than=timedelta(seconds=30))
    assert await relay.rows("SELECT rolled_to FROM ekiden.metric_watermark") == before


async def test_history_is_not_read(relay: Relay):
    """Finding what is new costs the same whatever has been."""
    await fill(relay)
    await relay.connection.execute(
        "INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)"
        " SELECT n, 1, 1, 'COMPLETED', now() - interval '1 h', now() - interval '1 h'"
        " FROM generate_series(1000000, 1200000) n"
    )
    await relay.connection.execute("VACUUM (ANALYZE) ekiden.attempts")
    await analyze(relay)
    async with second(relay.dsn) as connection:
        nodes = await plan_of(connection, "roll_up", f"now() - interval '20 s', now(), {GROWTH}")
    assert any(n.get("Index Name") == "attempts_by_time" for n in nodes)
    read = {n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan"}
    assert not read & {"attempts", "api_tasks", "sessions", "events"}


async def test_a_window_reads_its_own_sums_and_no_others(relay: Relay):
    await relay.connection.execute(
        "INSERT INTO ekiden.metric_rollups SELECT width, now() - n * interval '1 min', s, 1, 1, 1,"
        " 0, 0, 0, 0 FROM unnest(ARRAY['minute', 'hour', 'day']) AS width,"
        " generate_series(1, 600) n, generate_series(1, 40) s"
    )
    await relay.connection.execute("VACUUM (ANALYZE) ekiden.metric_rollups")
    pieces = (
        "ARRAY['minute', 'hour'], ARRAY[now() - interval '6 h', now() - interval '5 h'],"
        " ARRAY[now() - interval '5 h', now()], NULL"
    )
    async with second(relay.dsn) as connection:
        nodes = await plan_of(connection, "metric_facts", pieces)
    assert "metric_rollups_pkey" in indexes(nodes)
    assert "metric_rollups" not in scanned_whole(nodes)


async def test_the_present_is_what_the_tables_say(relay: Relay):
    metrics = Metrics(relay.pool, relay.dsn)
    await relay.at_gate()
    await relay.started()
    await relay.session()
    present = await metrics.present()
    assert (present.due, present.later) == (1, 0)
    assert present.oldest_s is not None and present.oldest_s >= 0
    assert present.sessions == {"RUNNING": 2, "AWAITING_REVIEW": 1}
    assert [(w.state, w.n) for w in present.workers] == [("ALIVE", 1)]
    assert present.connections >= 1
    assert 0 <= present.notify_queue_usage < 0.5
    assert (await metrics.present("another")).sessions == {}


async def test_a_review_is_measured_from_its_gate(relay: Relay):
    session = await relay.at_gate()
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET waiting_since = waiting_since - interval '1 h' WHERE id = $1",
        session,
    )
    await relay.sessions.approve(session, actor="a person")
    (fact,) = [f for f in await counted(relay) if f.measure == Measure.HUMAN]
    assert (fact.phase, fact.outcome, fact.n) == (1, "approve", 1)
    assert fact.seconds == pytest.approx(3600, abs=20)


async def test_only_what_a_session_waited_for_is_a_wait(relay: Relay):
    reviews = relay.sessions.reviews
    (task,) = await relay.executing(1)
    session = task.session_id
    budget = Review(verb=Verb.BUDGET, actor="me", budget=Budget(max_tokens=1000))
    await reviews.take(session, budget)  # it runs: nothing waits for it
    (integrate,) = await relay.complete(advance(task))
    await relay.complete(finish(integrate))
    edit = Review(verb=Verb.EDIT, actor="me", phase=1, output="better")
    await reviews.take(session, edit)  # it is done: nor for this
    assert count(await counted(relay), Measure.HUMAN) == 0
    await relay.connection.execute(
        "UPDATE ekiden.sessions SET waiting_since = waiting_since - interval '1 h'"
    )
    await reviews.take(session, edit)
    await relay.sessions.approve(session, actor="me")
    facts = {f.outcome: f for f in await counted(relay) if f.measure == Measure.HUMAN}
    assert {verb: fact.n for verb, fact in facts.items()} == {"edit": 1, "approve": 1}
    assert [f.seconds for f in facts.values()] == pytest.approx([3600, 3600], abs=20)
    times = await reviews.waiting_times()
    assert (times.waiting, times.decided) == (0, 2)


async def test_minutes_and_hours_are_let_go_and_days_are_kept(relay: Relay):
    await relay.executing(1)
    await counted(relay)
    await relay.connection.execute(
        "UPDATE ekiden.metric_rollups SET since = since - interval '4 days' WHERE width <> 'ever'"
    )
    await counted(relay)
    widths = await relay.rows("SELECT DISTINCT width FROM ekiden.metric_rollups ORDER BY 1")
    assert widths == [("day",), ("ever",)]

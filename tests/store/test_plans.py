"""How PostgreSQL goes about the hot queries, and that completions stay on their page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from ekiden.store.queries import sql
from tests.store.helpers import Relay, advance, next_phase

Plan = dict[str, Any]
SESSIONS = 3000
HISTORY = 3  # finished tasks of each

_FILL = """
WITH made AS (
    INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,
                                 retry_delay, timeout, open_tasks)
    SELECT $1, 't', '{}', true, false, 3, '1s', '1m', 1 FROM generate_series(1, $2)
    RETURNING id
), history AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, item, generation, status,
                                  attempt, worker_id, result, started_at, completed_at)
    SELECT id, $1, 1, 'EXECUTE', item, 1, 'COMPLETED', 1, 1, '{"ok": true}', now(), now()
    FROM made, generate_series(1, $3) AS item
), told AS (
    INSERT INTO ekiden.events (session_id, type) SELECT id, 'x' FROM made, generate_series(1, $3)
)
INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, item, generation, queued)
SELECT id, $1, 1, 'EXECUTE', 0, 1, true FROM made
"""


async def fill(relay: Relay) -> None:
    """Make thousands of finished tasks, and one queued task a session."""
    await relay.connection.execute(_FILL, relay.flow_id, SESSIONS, HISTORY)


async def analyze(relay: Relay) -> None:
    await relay.connection.execute("ANALYZE ekiden.api_tasks, ekiden.sessions, ekiden.events")


async def plan_of(
    connection: asyncpg.Connection,
    query: str,
    arguments: str,
    mode: str = "force_generic_plan",
    *,
    analyze: bool = False,
) -> list[Plan]:
    """Return the nodes of a query's plan; with ``analyze``, once it has run."""
    await connection.execute(f"SET plan_cache_mode = {mode}")
    await connection.execute(f"PREPARE asked AS {sql(query)}")
    try:
        explained = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON, ANALYZE {analyze}) EXECUTE asked({arguments})"
        )
    finally:
        await connection.execute("DEALLOCATE asked")
    return list(nodes_of(json.loads(explained)[0]["Plan"]))


def nodes_of(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes_of(child)


def scanned_whole(nodes: list[Plan]) -> set[str]:
    return {n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan"}


def indexes(nodes: list[Plan]) -> set[str]:
    return {n["Index Name"] for n in nodes if "Index Name" in n}


def compares_all_with_all(nodes: list[Plan]) -> list[Plan]:
    """Return the nested loops that read a part of the statement again for every row of another."""
    return [
        loop
        for loop in nodes
        if loop["Node Type"] == "Nested Loop"
        and all("Index Name" not in side for side in loop["Plans"])
    ]


HANDOFF = "1" + ", '{}'" * 24


async def test_a_claim_walks_the_index_of_what_is_queued_past_all_that_is_finished(relay: Relay):
    await fill(relay)
    await analyze(relay)
    nodes = await plan_of(relay.connection, "claim_tasks", "1, '{1}', 16, NULL")
    assert "api_tasks_claimable" in indexes(nodes)
    assert scanned_whole(nodes) == set()
    assert "Sort" not in {n["Node Type"] for n in nodes}, "the index has the order of the claim"


@pytest.mark.parametrize("seen", ["nothing running", "some running", "no statistics"])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])  # as behind a pooler
async def test_the_hand_off_finds_tasks_by_key_whatever_the_statistics_saw(
    relay: Relay, seen: str, mode: str
):
    await fill(relay)
    if seen == "some running":
        assert len(await relay.claim(limit=SESSIONS)) == SESSIONS
    if seen != "no statistics":
        await analyze(relay)
    nodes = await plan_of(relay.connection, "complete_tasks", HANDOFF, mode)
    assert "api_tasks_pkey" in indexes(nodes)
    assert scanned_whole(nodes) & {"api_tasks", "sessions"} == set()
    if mode == "force_generic_plan":  # a custom plan has seen that the arrays here are empty
        assert compares_all_with_all(nodes) == []


async def test_what_workers_and_pages_ask_for_all_day_is_found_by_key(relay: Relay):
    await fill(relay)
    await analyze(relay)
    session = f"'{await relay.connection.fetchval('SELECT id FROM ekiden.sessions LIMIT 1')}'"
    asked = {
        "next_due": ("'{1}', NULL", {"api_tasks_claimable"}),
        "list_events": (f"{session}, 0, 500", {"events_pkey"}),
        "load_sessions": (f"'{{{session[1:-1]}}}'", {"sessions_pkey", "api_tasks_of_session"}),
        "session_progress": (session, {"sessions_pkey", "api_tasks_of_session"}),
        "get_session": (session, {"sessions_pkey"}),
        "are_payable": ("'{1}', '{1}'", {"api_tasks_pkey"}),
    }
    for query, (arguments, expected) in asked.items():
        nodes = await plan_of(relay.connection, query, arguments)
        assert expected <= indexes(nodes), query
        assert scanned_whole(nodes) & {"api_tasks", "sessions", "events"} == set(), query


_DECIDED = """
WITH made AS (
    INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, output)
    SELECT id, 1, generation, 1, 'ann', '{}'
    FROM (SELECT id FROM ekiden.sessions LIMIT 2000) s, generate_series(1, 10) AS generation
    RETURNING id, session_id
)
INSERT INTO ekiden.reviews (session_id, phase, verb, revision_id, actor)
SELECT session_id, 1, 'approve', id, 'ann' FROM made
"""


@pytest.mark.parametrize("query", ["session_progress", "look_at_gate"])
async def test_who_approved_an_output_is_found_by_it(relay: Relay, query: str):
    await fill(relay)
    await relay.connection.execute(_DECIDED)
    await analyze(relay)
    await relay.connection.execute("ANALYZE ekiden.revisions, ekiden.reviews")
    nodes = await plan_of(relay.connection, query, f"'{uuid4()}'")
    assert "reviews_of_revision" in indexes(nodes)
    assert scanned_whole(nodes) & {"reviews", "revisions"} == set()


async def test_a_beat_does_not_look_into_sessions(relay: Relay):
    """However many there are and whoever holds them: it has 5 s, or the lease is lost."""
    nodes = await plan_of(relay.connection, "heartbeat", "1, '1m', 0, 'ALIVE', '{1}', '{1}', '{1}'")
    assert "sessions" not in {n.get("Relation Name") for n in nodes}


LOOKS = {"dead_workers": "'2 days'", "rescue_tasks": "'{1}', 3, '2 days'"}


@pytest.mark.parametrize("query", LOOKS)
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_look_for_the_dead_passes_by_all_that_is_finished(
    relay: Relay, query: str, mode: str
):
    await fill(relay)
    await analyze(relay)
    nodes = await plan_of(relay.connection, query, LOOKS[query], mode, analyze=True)
    assert "api_tasks_of_session" in indexes(nodes)
    assert "api_tasks" not in scanned_whole(nodes)

    await relay.connection.execute(
        "UPDATE ekiden.sessions "
        "SET status = 'FAILED', error = '{}', updated_at = now() - interval '3 days'"
    )
    nodes = await plan_of(relay.connection, query, LOOKS[query], mode, analyze=True)
    looked = [n for n in nodes if n.get("Index Name") == "api_tasks_of_session"]
    assert looked
    assert {n["Actual Loops"] for n in looked} == {0}, "FAILED for long: nothing runs there"


async def test_most_completions_stay_on_their_page(relay: Relay):
    running = [await relay.started() for _ in range(64)]
    for _ in range(10):
        running = await relay.complete(
            *(next_phase(t) if t.step == "INTEGRATE" else advance(t) for t in running)
        )
    await relay.connection.fetch("SELECT pg_stat_force_next_flush()")
    for table in ("api_tasks", "sessions"):
        updated, hot = await relay.row(
            f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{table}'"
        )
        assert updated >= 640, table
        assert hot / updated >= 0.6, table

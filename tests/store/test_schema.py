"""The schema and the words of Python: the same, and every query fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources

import asyncpg
import pytest

from ekiden.core.alerts import AlertKind
from ekiden.core.model import (
    CallOutcome,
    Outcome,
    SessionState,
    StepKind,
    TaskState,
    Verb,
    WorkerState,
)
from ekiden.store.drafts import DraftState
from ekiden.store.queries import load_queries, sql
from tests.store.helpers import Relay, second

CHECKS: list[tuple[str, type[StrEnum]]] = [
    ("task_status_is_known", TaskState),
    ("session_status_is_known", SessionState),
    ("task_step_is_known", StepKind),
    ("session_step_is_known", StepKind),
    ("attempt_outcome_is_known", Outcome),
    ("worker_state_is_known", WorkerState),
    ("call_outcome_is_known", CallOutcome),
    ("draft_status_is_known", DraftState),
    ("alert_kind_is_known", AlertKind),
]
_TEXT = re.compile(r"'([A-Za-z_]+)'::text")


def query_files() -> Iterator[tuple[str, str]]:
    for file in (resources.files("ekiden.store") / "queries").iterdir():
        yield file.name, file.read_text("utf-8")


async def test_every_state_is_one_the_schema_allows_and_the_other_way_round(database: str):
    async with second(database) as connection:
        for name, words in CHECKS:
            definition = await connection.fetchval(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", name
            )
            assert set(_TEXT.findall(definition)) == {str(word) for word in words}, name


async def test_every_verb_is_one_the_schema_allows(database: str):
    async with second(database) as connection:
        definition = await connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'review_verb_is_known'"
        )
    assert set(re.findall("'([a-z]+)'", definition)) == set(Verb)


async def test_every_check_on_a_state_is_among_those_compared(database: str):
    async with second(database) as connection:
        found = await connection.fetch(
            "SELECT conname FROM pg_constraint WHERE conname LIKE '%is_known'"
            " AND connamespace = 'ekiden'::regnamespace"
        )
    alone = {
        "call_kind_is_known",
        "draft_change_is_known",
        "review_verb_is_known",
        "errand_kind_is_known",
        "errand_status_is_known",
    }  # of SQL alone
    assert {row["conname"] for row in found} == {name for name, _ in CHECKS} | alone


async def test_sessions_that_may_have_tasks_are_those_no_gate_or_end_holds(database: str):
    async with second(database) as connection:
        definition = await connection.fetchval(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'sessions_with_tasks'"
        )
    assert set(_TEXT.findall(definition)) == {"RUNNING", "PAUSED", "FAILED"}


async def test_every_query_fits_the_schema(database: str):
    async with second(database) as connection:
        for name, statement in load_queries().items():
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")


def test_every_statement_in_a_file_is_named_described_and_loaded():
    names = []
    for file, text in query_files():
        for block in text.split("-- name: ")[1:]:
            name, description, *_ = block.splitlines()
            names.append(name)
            assert re.match(r"-- \w", description), f"{file}: {name} says not what it does"
    assert sorted(names) == sorted(load_queries())
    assert len(names) == len(set(names))


def test_asking_for_an_unknown_query_is_an_error():
    with pytest.raises(KeyError):
        sql("no_such_query")


async def test_the_clock_can_be_set_and_is_the_servers_otherwise(database: str):
    async with second(database) as connection:
        assert await connection.fetchval("SELECT ekiden.now() = statement_timestamp()")
        await connection.execute("SET ekiden.fake_now = '2030-01-01T00:00:00Z'")
        assert await connection.fetchval("SELECT ekiden.now() = '2030-01-01T00:00:00Z'")
        await connection.execute("SET ekiden.fake_now = ''")
        assert await connection.fetchval("SELECT ekiden.now() = statement_timestamp()")


# Foreign keys without an index: what they refer to is never deleted, and
UNINDEXED = {
    "sessions_flow_id_fkey",  # sessions are listed by their ids
    "errands_webhook_id_fkey",  # the list of webhooks counts all there is
}
_REFERENCES_WITHOUT_INDEX = """
SELECT c.conname FROM pg_constraint c
WHERE c.contype = 'f' AND c.connamespace = 'ekiden'::regnamespace
  AND NOT EXISTS (
      SELECT FROM pg_index i
      WHERE i.indrelid = c.conrelid
        AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        -- A partial one serves where all it leaves out is rows that refer to nothing.
        AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = (
             SELECT format('(%I IS NOT NULL)', a.attname) FROM pg_attribute a
             WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1])))
"""


async def test_every_reference_to_another_table_leads_an_index(database: str):
    async with second(database) as connection:
        found = await connection.fetch(_REFERENCES_WITHOUT_INDEX)
    assert {row["conname"] for row in found} == UNINDEXED


INVARIANTS = [
    ("api_tasks SET status = 'DONE'", "task_status_is_known"),
    ("api_tasks SET queued = true", "task_waits_only_while_queued"),
    ("api_tasks SET status = 'COMPLETED'", "task_completes_with_a_result"),
    ("api_tasks SET result = 'true'", "task_completes_with_a_result"),
    ("api_tasks SET worker_id = NULL", "task_runs_on_a_worker"),
    ("api_tasks SET attempt = 0", "task_runs_on_a_worker"),
    ("sessions SET status = 'AWAITING_REVIEW'", "session_open_tasks_fit_status"),
    ("sessions SET open_tasks = -1", "session_open_tasks_fit_status"),
    ("sessions SET status = 'FAILED'", "session_failure_has_a_reason"),
    ("sessions SET completed_at = now()", "session_end_has_a_time"),
    ("sessions SET status = 'CANCELLED'", "session_end_has_a_time"),
    ("sessions SET waiting_since = now()", "session_waits_at_a_gate_or_a_stop"),
    ("sessions SET stop = '{}'", "session_stop_is_a_pause"),
    ("sessions SET parent_phase = 1", "session_has_a_whole_parent"),
    ("api_tasks SET tolerated = true", "task_is_tolerated_once_failed"),
]


async def test_the_invariants_are_kept_by_the_schema_itself(relay: Relay):
    await relay.started()
    for change, invariant in INVARIANTS:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await relay.connection.execute(f"UPDATE ekiden.{change}")
        assert caught.value.constraint_name == invariant, change


async def test_a_step_cannot_be_inserted_twice(relay: Relay):
    await relay.started()
    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await relay.connection.execute(
            "INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued)"
            " SELECT session_id, flow_id, phase, step, generation, true FROM ekiden.api_tasks"
        )
    assert caught.value.constraint_name == "api_tasks_of_session"

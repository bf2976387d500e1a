"""``ekiden prune``: what ended long ago goes with all that belongs to it, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.cli.program import TOY, Program


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def toy(program: Program, *arguments: str) -> str:
    ended = await program.run("run", "toy", "--flow", TOY, "--name", "x", "--json", *arguments)
    session: str = ended.json["sessionId"]
    return session


@pytest.fixture
async def sessions(program: Program, connection: asyncpg.Connection) -> list[str]:
    """Two that ended, the first 91 days ago, and an old one that waits at a gate."""
    made = [await toy(program, "--auto-approve") for _ in range(2)]
    made.append(await toy(program))
    await connection.execute(
        "UPDATE ekiden.sessions SET created_at = now() - interval '91 days', "
        "completed_at = completed_at - interval '91 days' WHERE id = ANY ($1::uuid[])",
        [made[0], made[2]],
    )
    return made


async def rows(connection: asyncpg.Connection) -> dict[str, int]:
    """Return how many rows each table has, but those that do not belong to sessions."""
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'ekiden'::regnamespace AND relkind = 'r'"
    )
    apart = {
        "flows", "workers", "webhooks", "migrations",
        "documents", "passages", "sources", "searches", "feeds",
        "alerts", "alert_watch", "login_attempts",
        "metric_rollups", "metric_series", "metric_watermark",  # what was counted stays counted
    }  # fmt: skip
    return {
        name: await connection.fetchval(f'SELECT count(*) FROM ekiden."{name}"')
        for (name,) in tables
        if name not in apart
    }


async def test_what_ended_long_ago_goes_and_what_waits_stays(
    program: Program, sessions: list[str], connection: asyncpg.Connection
) -> None:
    ended = await program.run("prune", "--older-than", "90", "--yes")
    assert (ended.code, ended.out) == (0, "Deleted 1 session with 7 tasks.\n")
    left = [str(r[0]) for r in await connection.fetch("SELECT id FROM ekiden.sessions ORDER BY id")]
    assert left == sessions[1:]
    assert (await program.run("verify")).code == 0


async def test_nothing_of_a_session_is_left(
    program: Program, connection: asyncpg.Connection
) -> None:
    session = await toy(program, "--auto-approve")
    # What the toy flow, which asks no model, leaves empty.
    task = await connection.fetchval("SELECT min(id) FROM ekiden.api_tasks")
    await connection.execute(
        "INSERT INTO ekiden.partials (session_id, task_id, attempt, call, seq, text) "
        "VALUES ($1, $2, 1, 1, 1, 'x')",
        session,
        task,
    )
    await connection.execute(
        "INSERT INTO ekiden.started_calls (session_id, task_id, attempt, number, kind, provider, "
        "model, request_hash, answer_id) VALUES ($1, $2, 1, 1, 'ask', 'p', 'm', '', 'a')",
        session,
        task,
    )
    await connection.execute(
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model, "
        "request_hash, request, answer, outcome, started_at, finished_at) "
        "VALUES ($1, $2, 1, 1, 'ask', 'p', 'm', '', '', 'x', 'ANSWERED', now(), now())",
        session,
        task,
    )
    await connection.execute(
        "INSERT INTO ekiden.reservations (session_id, task_id, attempt, number, phase, tokens) "
        "VALUES ($1, $2, 1, 1, 1, 1)",
        session,
        task,
    )
    await connection.execute(
        "WITH made AS (INSERT INTO ekiden.errands (kind, session_id, event) "
        "VALUES ('reminder', $1, 'remind') RETURNING id) "
        "INSERT INTO ekiden.errand_attempts (errand_id, number, took) "
        "SELECT id, 1, '1 s' FROM made",
        session,
    )
    await connection.execute(
        "INSERT INTO ekiden.budgets (session_id, phase, max_tokens) VALUES ($1, 0, 1)", session
    )
    await connection.execute(
        "INSERT INTO ekiden.attempt_logs (session_id, task_id, attempt, lines) "
        "VALUES ($1, $2, 1, '[]')",
        session,
        task,
    )
    assert {name for name, count in (await rows(connection)).items() if count == 0} == set()
    ended = await program.run("prune", "--older-than", "0", "--yes", "--json")
    assert ended.json == {"sessions": 1, "tasks": 7, "dryRun": False}
    assert {name: n for name, n in (await rows(connection)).items() if n} == {}


async def test_a_session_stays_as_long_as_a_fork_shares_its_outputs(
    program: Program, connection: asyncpg.Connection
) -> None:
    session = await toy(program, "--auto-approve")
    forked = (await program.run("sessions", "fork", session, "--phase", "1", "--json")).json
    kept = await program.run("prune", "--older-than", "0", "--yes")
    assert (kept.code, kept.out) == (0, "No session ended more than 0 days ago.\n")
    assert (await program.run("sessions", "cancel", forked["sessionId"])).code == 0
    for _ in range(2):  # the fork first, then what it shared
        assert (await program.run("prune", "--older-than", "0", "--yes")).code == 0
    assert await connection.fetchval("SELECT count(*) FROM ekiden.sessions") == 0


async def test_a_dry_run_deletes_nothing_and_without_a_terminal_yes_must_be_said(
    program: Program, sessions: list[str], connection: asyncpg.Connection
) -> None:
    counted = await program.run("prune", "--older-than", "90", "--dry-run")
    assert (counted.code, counted.out) == (0, "1 session would be deleted.\n")
    refused = await program.run("prune", "--older-than", "90")
    assert refused.code == 2
    assert "add --yes" in refused.err
    assert await connection.fetchval("SELECT count(*) FROM ekiden.sessions") == len(sessions)
    none = await program.run("prune", "--older-than", "1000", "--yes")
    assert (none.code, none.out) == (0, "No session ended more than 1000 days ago.\n")

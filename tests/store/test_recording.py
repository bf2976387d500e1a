"""A session goes into a file and comes out of it the same."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from ekiden.core import recording as files
from ekiden.core.recording import Rows
from ekiden.errors import Conflict, NotFound
from tests.store.helpers import ERROR, Relay, advance, gate
from tests.store.test_verify import check, red

_TABLES = (
    "attempt_logs", "attempts", "calls", "reviews", "revisions", "events", "drafts", "phase_runs",
    "api_tasks", "sessions", "workers", "flows",
)  # fmt: skip


async def rich(relay: Relay) -> str:
    """Make a session with a bit of everything that waits at a gate."""
    execute = await relay.executing(2)
    session = execute[0].session_id
    await relay.tasks.retry(execute[0], ERROR, timedelta(0))
    await relay.tasks.keep_log(execute[0], '[{"event": "x\\u0000"}]')
    (again,) = await relay.claim(session)
    await relay.connection.execute(
        "INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,"
        " request_hash, request, answer, outcome, cost_usd, started_at, finished_at)"
        " VALUES ($1, $2, 1, 1, 'ask', 'p', 'm', '\\x00ff', '{\"a\": 1}', '\\x00ff10', 'INVALID',"
        " 0.000001, now(), now()), ($1, $2, 2, 1, 'search', 's', 'm', '', '', NULL, 'FAILED', NULL,"
        " now(), now())",
        session,
        again.id,
    )
    (integrate,) = await relay.complete(
        advance(again, result='{"odd": "\\u0000", "long": 12345678901234567890, "f": 1.0}'),
        advance(execute[1]),
    )
    await relay.complete(gate(integrate))
    return session


async def emptied(relay: Relay) -> None:
    for table in _TABLES:
        await relay.connection.execute(f"DELETE FROM ekiden.{table}")


def without_ids(rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """Return rows with ids as positions: they are new in every database."""
    places = {
        part: {row["id"]: place for place, row in enumerate(rows[part])}
        for part in ("tasks", "workers", "revisions", "calls")
    }
    of = {"task_id": "tasks", "worker_id": "workers", "revision_id": "revisions"}
    found = copy.deepcopy(rows)
    for part, part_rows in found.items():
        for row in part_rows:
            if part in places:
                row["id"] = places[part][row["id"]]
            for name, other in of.items():
                if row.get(name) is not None:
                    row[name] = places[other][row[name]]
    return found


async def test_a_session_comes_out_as_it_went_in(relay: Relay):
    session = await rich(relay)
    before = red(await check(relay.dsn))
    taken = await relay.sessions.recordings.take(session)
    assert all(taken[part] for part in files.PARTS if part not in {"reviews", "drafts"})
    await emptied(relay)
    await relay.connection.execute("ALTER SEQUENCE ekiden.api_tasks_id_seq RESTART WITH 5000")
    assert await relay.sessions.recordings.put(files.read(files.write(taken))) == session
    again = await relay.sessions.recordings.take(session)
    assert min(task["id"] for task in again["tasks"]) == 5000
    assert without_ids(again) == without_ids(taken)
    assert red(await check(relay.dsn)) == before


async def test_it_goes_on_here_when_a_person_lets_it(relay: Relay):
    session = await rich(relay)
    taken = await relay.sessions.recordings.take(session)
    await emptied(relay)
    await relay.sessions.recordings.put(taken)
    flow = await relay.connection.fetchval("SELECT id FROM ekiden.flows")
    worker = await relay.workers.register(
        software="0", model="none", flow_ids=[flow], capacity=4, lease=timedelta(minutes=1)
    )
    assert await relay.tasks.claim(worker, [flow], 10) == []
    await relay.sessions.approve(session, actor="a person")
    (task,) = await relay.tasks.claim(worker, [flow], 10)
    assert (task.phase, task.step) == (2, "THINK")
    data = (await relay.tasks.load_sessions([session]))[session]
    assert data.outputs == {1: '"output"'}


async def test_what_is_queued_is_held(relay: Relay):
    execute = await relay.executing(2)
    await relay.tasks.release(execute[0])
    await relay.tasks.fail(execute[1], ERROR)
    taken = await relay.sessions.recordings.take(execute[0].session_id)
    await emptied(relay)
    await relay.sessions.recordings.put(taken)
    held = await relay.rows("SELECT status, queued, awaiting FROM ekiden.api_tasks ORDER BY item")
    assert held[1:] == [("QUEUED", False, True), ("FAILED", False, False)] or held == [
        ("COMPLETED", False, False), ("QUEUED", False, True), ("FAILED", False, False),
    ]  # fmt: skip


async def test_one_that_runs_or_is_here_or_is_nowhere_is_refused(relay: Relay):
    task = await relay.started()
    running = await relay.sessions.recordings.take(task.session_id)
    with pytest.raises(Conflict, match="was running"):
        await relay.sessions.recordings.put(running)
    session = await rich(relay)
    taken = await relay.sessions.recordings.take(session)
    before = await relay.rows("SELECT count(*) FROM ekiden.api_tasks")
    with pytest.raises(Conflict, match="already"):
        await relay.sessions.recordings.put(taken)
    assert await relay.rows("SELECT count(*) FROM ekiden.api_tasks") == before
    with pytest.raises(NotFound):
        await relay.sessions.recordings.take("00000000-0000-0000-0000-000000000000")

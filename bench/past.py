"""A database with a past, written in a few large statements: the rows that years of work leave."""

from __future__ import annotations

import asyncpg

# Sessions of the newest flow, each with $1 finished phases of three steps.
_SESSIONS = """
INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,
                             retry_delay, timeout, status, phase, step, completed_at,
                             waiting_since)
SELECT (SELECT max(id) FROM ekiden.flows), $2, '{{"id": "past"}}', true, {auto}, 3, '1s', '1m',
       '{status}', {phases}, 'INTEGRATE', {completed_at},
       CASE '{status}' WHEN 'AWAITING_REVIEW' THEN now() END
FROM generate_series(1, $1)
"""
_TASKS = """
INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, status, attempt,
                              worker_id, result, started_at, completed_at)
SELECT s.id, s.flow_id, run.phase, kind.step, 1, 'COMPLETED', 1, 1, '{"ok": true}', now(), now()
FROM ekiden.sessions s, generate_series(1, s.phase) AS run (phase),
     unnest(ARRAY['THINK', 'EXECUTE', 'INTEGRATE']) AS kind (step)
WHERE s.title = $1
"""
_REST = (
    """
INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
SELECT t.id, 1, 1, 'COMPLETED', t.started_at, t.completed_at
FROM ekiden.api_tasks t JOIN ekiden.sessions s ON s.id = t.session_id WHERE s.title = $1
""",
    """
INSERT INTO ekiden.events (session_id, type, phase, step, task_id)
SELECT t.session_id, 'task_completed', t.phase, t.step, t.id
FROM ekiden.api_tasks t JOIN ekiden.sessions s ON s.id = t.session_id WHERE s.title = $1
""",
    """
INSERT INTO ekiden.phase_runs (session_id, phase, generation)
SELECT s.id, run.phase, 1 FROM ekiden.sessions s, generate_series(1, s.phase) AS run (phase)
WHERE s.title = $1
""",
    """
INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, task_id, approved_at,
                              approved_by)
SELECT t.session_id, t.phase, 1, 1, 'model', t.id,
       CASE WHEN s.status = 'COMPLETED' OR t.phase < s.phase THEN now() END,
       CASE WHEN s.status = 'COMPLETED' OR t.phase < s.phase THEN 'flow' END
FROM ekiden.api_tasks t JOIN ekiden.sessions s ON s.id = t.session_id
WHERE s.title = $1 AND t.step = 'INTEGRATE'
""",
)


async def finished(dsn: str, sessions: int) -> None:
    """Add sessions of five phases that are COMPLETED, with all that is kept of their 15 tasks."""
    await _add(
        dsn, sessions, "finished", auto="true", status="COMPLETED", phases=5, completed_at="now()"
    )


async def at_gates(dsn: str, sessions: int) -> None:
    """Add sessions that wait for a person behind their first phase."""
    await _add(
        dsn, sessions, "waiting", auto="false", status="AWAITING_REVIEW", phases=1,
        completed_at="NULL",
    )  # fmt: skip


async def _add(dsn: str, sessions: int, title: str, **columns: object) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SESSIONS.format(**columns), sessions, title)
    for query in (_TASKS, *_REST):
        await connection.execute(query, title)
    await connection.execute("VACUUM (ANALYZE)")  # as autovacuum would have in the meantime
    await connection.execute("CHECKPOINT")
    await connection.close()

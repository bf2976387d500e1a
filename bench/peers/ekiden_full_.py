"""Ekiden with a past: a million finished tasks in its tables, and all that was kept of them."""

from __future__ import annotations

import sys
from math import ceil

import asyncpg

from peers import common
from peers.ekiden_ import PACKAGES, client, worker
from peers.ekiden_ import set_up as set_up_empty

KEEPS = "the same, beside 1,000,000 finished tasks with their attempts and events"
__all__ = ["PACKAGES", "client", "worker"]
FINISHED = 1_000_000

_SESSIONS = """
INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,
                             retry_delay, timeout, status, phase, step, completed_at)
SELECT (SELECT max(id) FROM ekiden.flows), 'finished', '{"id": "finished"}', true, true, 3, '1s',
       '1m', 'COMPLETED', 5, 'INTEGRATE', now()
FROM generate_series(1, $1)
"""
_TASKS = """
INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, status, attempt,
                              worker_id, result, started_at, completed_at)
SELECT s.id, s.flow_id, phase, step, 1, 'COMPLETED', 1, 1, '{"ok": true}', now(), now()
FROM ekiden.sessions s, generate_series(1, $1) AS phase,
     unnest(ARRAY['THINK', 'EXECUTE', 'INTEGRATE']) AS step
"""
_ATTEMPTS = """
INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
SELECT id, 1, 1, 'COMPLETED', started_at, completed_at FROM ekiden.api_tasks
"""
_EVENTS = """
INSERT INTO ekiden.events (session_id, type, phase, step, task_id)
SELECT session_id, 'task_completed', phase, step, id FROM ekiden.api_tasks
"""
_PHASES = """
INSERT INTO ekiden.phase_runs (session_id, phase, generation)
SELECT session_id, phase, 1 FROM ekiden.api_tasks WHERE step = 'THINK'
"""
_REVISIONS = """
INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, task_id, approved_at)
SELECT session_id, phase, 1, 1, 'model', id, now() FROM ekiden.api_tasks WHERE step = 'INTEGRATE'
"""


async def set_up(dsn: str) -> None:
    await set_up_empty(dsn)
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SESSIONS, ceil(FINISHED / common.STEPS))
    await connection.execute(_TASKS, common.PHASES)
    for query in (_ATTEMPTS, _EVENTS, _PHASES, _REVISIONS):
        await connection.execute(query)
    await connection.execute("VACUUM (ANALYZE)")  # as autovacuum would have in the meantime
    await connection.execute("CHECKPOINT")
    await connection.close()


if __name__ == "__main__":
    common.main(sys.modules[__name__])

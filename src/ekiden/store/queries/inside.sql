-- The inside of one session: what each attempt did, said and took.

-- name: session_tried
-- Every task of a session with each of its attempts, the running one too; tasks without any as well.
SELECT t.id AS task_id, t.phase, t.generation, t.step, t.item, t.status, t.awaiting, t.created_at,
       a.number, a.outcome, a.started_at, a.finished_at, a.retry_at
FROM ekiden.api_tasks t
LEFT JOIN LATERAL (
    SELECT number, outcome, started_at, finished_at, retry_at FROM ekiden.attempts
    WHERE task_id = t.id
    UNION ALL
    SELECT t.attempt, 'RUNNING', t.started_at, NULL, NULL WHERE t.status = 'RUNNING'
) a ON true
WHERE t.session_id = $1 ORDER BY t.id, a.number;

-- name: session_call_times
-- How long each call of a session took.
SELECT task_id, provider || ':' || model AS source,
       greatest(0, extract(epoch FROM finished_at - started_at))::float8 AS seconds
FROM ekiden.calls WHERE session_id = $1;

-- name: session_moments
-- The events of a session that begin or end a person's turn.
SELECT type, phase, step, created_at AS at FROM ekiden.events
WHERE session_id = $1 AND type IN ('gate_opened', 'task_failed', 'session_paused',
                                   'session_resumed', 'step_started')
ORDER BY id;

-- name: session_runs
-- When each generation of each phase began, and the time now.
SELECT phase, generation, started_at, ekiden.now() AS now FROM ekiden.phase_runs
WHERE session_id = $1 ORDER BY started_at, phase, generation;

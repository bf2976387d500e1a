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
                                   'session_resumed', 'step_started', 'items_failed',
                                   'items_accepted', 'items_retried', 'budget_reached',
                                   'budget_set', 'phase_rerun')
ORDER BY id;

-- name: session_runs
-- When each generation of each phase began, and the time now.
SELECT phase, generation, started_at, ekiden.now() AS now FROM ekiden.phase_runs
WHERE session_id = $1 ORDER BY started_at, phase, generation;

-- name: keep_attempt_log
-- Keeps what an attempt has logged.
INSERT INTO ekiden.attempt_logs (session_id, task_id, attempt, lines)
VALUES ($1, $2, $3, $4::json) ON CONFLICT DO NOTHING;

-- name: get_task
-- One task of a session ($1).
SELECT id, phase, step, item, generation, status, queued, awaiting, tolerated, attempt, available_at,
       worker_id, request::text, result::text, error::text, created_at, started_at, completed_at
FROM ekiden.api_tasks WHERE session_id = $1 AND id = $2;

-- name: attempt_insides
-- Where each attempt of a task ran, and what is kept of its log.
SELECT n.number, w.host, w.pid, w.software, l.lines::text AS logs
FROM (SELECT number, worker_id FROM ekiden.attempts WHERE task_id = $2
      UNION ALL
      SELECT attempt, worker_id FROM ekiden.api_tasks WHERE id = $2 AND status = 'RUNNING') n
LEFT JOIN ekiden.workers w ON w.id = n.worker_id
LEFT JOIN ekiden.attempt_logs l ON l.task_id = $2 AND l.attempt = n.number
WHERE EXISTS (SELECT FROM ekiden.api_tasks WHERE id = $2 AND session_id = $1)
ORDER BY n.number;

-- name: get_call
-- One call of a session ($1), with its request and the beginning of its answer ($3 bytes).
SELECT c.id, c.task_id, t.phase, t.step, t.item, t.generation, c.attempt, c.number, c.kind,
       c.provider, c.model, c.outcome, c.error, c.http_status, c.content_type, c.input_tokens,
       c.output_tokens, c.cost_usd, c.started_at, c.finished_at, c.request_id, c.first_token,
       c.price_version, c.finish_reason, c.citations::text, c.request,
       encode(c.request_hash, 'hex') AS request_hash, octet_length(c.answer) AS answer_bytes,
       substring(c.answer FROM 1 FOR $3) AS answer
FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
WHERE c.session_id = $1 AND c.id = $2;

-- name: call_answer
-- The answer of a call, byte for byte; null when none came.
SELECT answer FROM ekiden.calls WHERE session_id = $1 AND id = $2;

-- name: calls_of_attempts
-- The calls of two attempts ($3) of a task, with request and answer, as far as $4 bytes of each.
SELECT id, attempt, number, outcome, error, substring(request FROM 1 FOR $4) AS request,
       substring(answer FROM 1 FOR $4) AS answer
FROM ekiden.calls WHERE session_id = $1 AND task_id = $2 AND attempt = ANY ($3::int[])
ORDER BY attempt, number, id;

-- How attempts end that do not complete their task. Lock order: sessions by id, then their tasks.

-- name: retry_task
-- Puts the task of an attempt that failed, or that only waits, back in the queue, due after $4; held
-- if the session was paused meanwhile. $5: its outcome, which tells the two apart; $6: whether the
-- attempt counts. Fenced on (RUNNING, attempt).
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status FROM ekiden.sessions s
    WHERE s.id = (SELECT session_id FROM ekiden.api_tasks WHERE id = $1) FOR UPDATE
), again AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = l.status <> 'PAUSED', awaiting = l.status = 'PAUSED',
        error = $3::json, available_at = ekiden.now() + $4,
        budget_from = t.budget_from + CASE WHEN $6::boolean THEN 0 ELSE 1 END
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at,
                                 finished_at, retry_at)
    SELECT id, attempt, worker_id, $5, $3::json, started_at, ekiden.now(), available_at FROM again
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data)
    SELECT session_id, 'task_retried', phase, step, id,
           json_build_object('attempt', attempt, 'outcome', $5::text,
                             'error', $3::json ->> 'message', 'retryAt', available_at)
    FROM again
)
SELECT available_at FROM again;

-- name: fail_task
-- Fails a task for good, and its session with it. Siblings that run may end; their results are
-- kept. The first event of a failure says so: it alone is told outside (owe_errands). Fenced on
-- (RUNNING, attempt).
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status FROM ekiden.sessions s
    WHERE s.id = (SELECT session_id FROM ekiden.api_tasks WHERE id = $1) FOR UPDATE
), failed AS (
    UPDATE ekiden.api_tasks t
    SET status = 'FAILED', error = $3::json
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at,
                                 finished_at)
    SELECT id, attempt, worker_id, 'FAILED', $3::json, started_at, ekiden.now() FROM failed
), stopped AS (
    UPDATE ekiden.sessions s
    SET status = 'FAILED', updated_at = ekiden.now(), stop = NULL, waiting_since = NULL,
        waited = s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0'),
        error = json_build_object('message', $3::json ->> 'message', 'kind', $3::json ->> 'kind',
                                  'phase', f.phase, 'step', f.step, 'item', f.item,
                                  'attempt', f.attempt, 'taskId', f.id, 'retryAt', NULL)
    FROM failed f WHERE s.id = f.session_id AND s.status IN ('RUNNING', 'PAUSED', 'FAILED')
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data)
    SELECT f.session_id, 'task_failed', f.phase, f.step, f.id,
           json_build_object('attempt', f.attempt, 'error', $3::json ->> 'message',
                             'first', l.status <> 'FAILED')
    FROM failed f, locked l
)
SELECT id FROM failed;

-- name: drop_item
-- Gives an item of a fan-out up for good, and lets its siblings go on: the flow goes on without $4 of
-- them. The last one to end closes the step, or stops the session for a person when too many failed.
-- Fenced on (RUNNING, attempt).
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status, s.auto_steps, s.open_tasks = 1 AS last,
           s.open_tasks = 1 AND s.failed_items + 1 > $4 AS stops
    FROM ekiden.sessions s
    WHERE s.id = (SELECT session_id FROM ekiden.api_tasks WHERE id = $1)
      AND s.status IN ('RUNNING', 'PAUSED', 'FAILED') FOR UPDATE
), failed AS (
    UPDATE ekiden.api_tasks t
    SET status = 'FAILED', tolerated = true, error = $3::json
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at,
                                 finished_at)
    SELECT id, attempt, worker_id, 'FAILED', $3::json, started_at, ekiden.now() FROM failed
), moved AS (
    UPDATE ekiden.sessions s
    SET open_tasks = CASE WHEN NOT l.last THEN s.open_tasks - 1 WHEN l.stops THEN 0 ELSE 1 END,
        step = CASE WHEN l.last AND NOT l.stops THEN 'INTEGRATE' ELSE s.step END,
        status = CASE WHEN l.stops THEN 'PAUSED' ELSE s.status END,
        failed_items = CASE WHEN l.last AND NOT l.stops THEN 0 ELSE s.failed_items + 1 END,
        tolerated_items = $4,
        stop = CASE WHEN l.stops THEN json_build_object('kind', 'items', 'phase', f.phase,
                                                        'step', f.step, 'failed', s.failed_items + 1)
                    ELSE s.stop END,
        waiting_since = CASE WHEN l.stops THEN ekiden.now() ELSE s.waiting_since END,
        updated_at = ekiden.now()
    FROM locked l, failed f WHERE s.id = l.id
    RETURNING s.id, s.flow_id, s.phase, s.generation, l.last AND NOT l.stops AS closes, l.stops,
              NOT l.auto_steps OR l.status = 'PAUSED' AS held
), next AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued, awaiting)
    SELECT id, flow_id, phase, 'INTEGRATE', generation, NOT held, held FROM moved WHERE closes
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data)
    SELECT session_id, 'item_dropped', phase, step, id,
           json_build_object('attempt', attempt, 'item', item, 'error', $3::json ->> 'message')
    FROM failed
    UNION ALL
    SELECT id, 'items_failed', phase, 'EXECUTE', NULL, NULL FROM moved WHERE stops
)
SELECT id FROM failed;

-- name: siblings_of
-- How many items the fan-out of a task has.
SELECT count(*) FROM ekiden.api_tasks t JOIN ekiden.api_tasks s
    ON (s.session_id, s.phase, s.generation, s.step) = (t.session_id, t.phase, t.generation, t.step)
WHERE t.id = $1;

-- name: stop_for_budget
-- Puts a task back whose next call would exceed a budget, and pauses its session until a person
-- raises the budget or ends it. The attempt does not count; what it has paid for is in the ledger.
-- $3 says which budget; the first event of a stop says so, and it alone is told outside. Fenced on
-- (RUNNING, attempt).
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status, s.status <> 'FAILED' AND s.stop IS NULL AS first FROM ekiden.sessions s
    WHERE s.id = (SELECT session_id FROM ekiden.api_tasks WHERE id = $1)
      AND s.status IN ('RUNNING', 'PAUSED', 'FAILED') FOR UPDATE
), freed AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = false, awaiting = true, available_at = ekiden.now(),
        budget_from = t.budget_from + 1
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at,
                                 retry_at)
    SELECT id, attempt, worker_id, 'RELEASED', started_at, ekiden.now(), ekiden.now() FROM freed
), stopped AS (
    UPDATE ekiden.sessions s
    SET status = 'PAUSED', stop = coalesce(s.stop, $3::json), updated_at = ekiden.now(),
        waiting_since = coalesce(s.waiting_since, ekiden.now())
    FROM freed f WHERE s.id = f.session_id AND s.status IN ('RUNNING', 'PAUSED')
    RETURNING s.id
), held AS (
    UPDATE ekiden.api_tasks t SET queued = false, awaiting = true
    FROM stopped p WHERE t.session_id = p.id AND t.queued
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data)
    SELECT f.session_id, 'budget_reached', f.phase, f.step, f.id,
           $3::jsonb || jsonb_build_object('first', l.first)
    FROM freed f, locked l
)
SELECT id FROM freed;

-- name: release_task
-- Gives a task back unharmed when its worker stops; the attempt does not count. Fenced.
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status FROM ekiden.sessions s
    WHERE s.id = (SELECT session_id FROM ekiden.api_tasks WHERE id = $1) FOR UPDATE
), freed AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = l.status <> 'PAUSED', awaiting = l.status = 'PAUSED',
        available_at = ekiden.now(), budget_from = t.budget_from + 1
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at,
                                 retry_at)
    SELECT id, attempt, worker_id, 'RELEASED', started_at, ekiden.now(), ekiden.now() FROM freed
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id)
    SELECT session_id, 'task_released', phase, step, id FROM freed
)
SELECT id FROM freed;

-- Sessions: created, started, reviewed, paused, resumed, cancelled, looked at.
-- Lock order: sessions by id, then their tasks.

-- name: create_session
-- Creates a session on the newest registered version of a flow, with its first task: queued when
-- $10, else held until process-async. A second call with the same idempotency key changes nothing.
-- Its budgets are positions of $14 to $16.
WITH flow AS (
    SELECT id FROM ekiden.flows WHERE name = $1 ORDER BY registered_at DESC, id DESC LIMIT 1
), made AS (
    INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,
                                 retry_delay, timeout, idempotency_key, open_tasks, created_by,
                                 gates, models)
    SELECT id, $2, $3::json, $4, $5, $6, $7, $8, $9, 1, $11, $12::jsonb, $13::jsonb FROM flow
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id, flow_id
), limited AS (
    INSERT INTO ekiden.budgets (session_id, phase, max_cost_usd, max_tokens)
    SELECT m.id, b.phase, b.cost, b.tokens
    FROM made m, unnest($14::smallint[], $15::numeric[], $16::bigint[]) AS b(phase, cost, tokens)
), run AS (
    INSERT INTO ekiden.phase_runs (session_id, phase, generation) SELECT id, 1, 1 FROM made
), task AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued, awaiting)
    SELECT id, flow_id, 1, 'THINK', 1, $10, NOT $10 FROM made
), told AS (
    INSERT INTO ekiden.events (session_id, type) SELECT id, 'session_created' FROM made
)
SELECT id::text, true AS created FROM made
UNION ALL
SELECT id::text, false FROM ekiden.sessions
WHERE idempotency_key = $9 AND NOT EXISTS (SELECT FROM made)
LIMIT 1;

-- name: lock_session
-- Takes the lock of a session, before a decision over it in the same transaction. The decision's own
-- statement then sees what a hand-off committed while we waited: its tasks, its revision. Returns
-- where the session stands.
SELECT phase, step, generation, waiting_since FROM ekiden.sessions WHERE id = $1 FOR UPDATE;

-- name: start_session
-- process-async: lets the held tasks of a running session go. Safe to repeat.
WITH locked AS MATERIALIZED (
    SELECT id, status, stop ->> 'kind' AS stop FROM ekiden.sessions WHERE id = $1 FOR UPDATE
), freed AS (
    UPDATE ekiden.api_tasks t
    SET queued = true, awaiting = false, available_at = ekiden.now()
    FROM locked l
    WHERE t.session_id = l.id AND l.status = 'RUNNING' AND t.awaiting
    RETURNING t.session_id, t.phase, t.step
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step)
    SELECT DISTINCT session_id, 'step_started', phase, step FROM freed
)
SELECT l.status, l.stop, (SELECT count(*) FROM freed) AS started FROM locked l;

-- name: pause_session
-- Stops a session after what runs now: due and queued tasks are held.
WITH locked AS MATERIALIZED (
    SELECT id, status, stop ->> 'kind' AS stop FROM ekiden.sessions WHERE id = $1 FOR UPDATE
), paused AS (
    UPDATE ekiden.sessions s SET status = 'PAUSED', updated_at = ekiden.now()
    FROM locked l WHERE s.id = l.id AND l.status = 'RUNNING'
    RETURNING s.id
), held AS (
    UPDATE ekiden.api_tasks t SET queued = false, awaiting = true
    FROM paused p WHERE t.session_id = p.id AND t.queued
), told AS (
    INSERT INTO ekiden.events (session_id, type, data)
    SELECT id, 'session_paused', json_build_object('actor', $2::text) FROM paused
)
SELECT l.status, l.stop, EXISTS (SELECT FROM paused) AS changed FROM locked l;

-- name: resume_session
-- Goes on where a paused or failed session stopped. Failed tasks are queued with a fresh budget;
-- what was completed stays.
WITH locked AS MATERIALIZED (
    SELECT id, status, stop ->> 'kind' AS stop FROM ekiden.sessions WHERE id = $1 FOR UPDATE
), resumed AS (
    UPDATE ekiden.sessions s
    SET status = 'RUNNING', error = NULL, updated_at = ekiden.now(), stop = NULL,
        archived_at = NULL, waiting_since = NULL,
        waited = s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0')
    FROM locked l
    -- Where items have failed somebody must say what becomes of them: accept or retry.
    WHERE s.id = l.id AND l.status IN ('PAUSED', 'FAILED')
      AND s.stop ->> 'kind' IS DISTINCT FROM 'items'
    RETURNING s.id
), again AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = true, awaiting = false, available_at = ekiden.now(),
        error = NULL,  -- the attempts keep it
        -- What was delivered to a task that failed was wrong; what waited through a pause was not.
        delivered = CASE WHEN t.status <> 'FAILED' THEN t.delivered END,
        budget_from = CASE WHEN t.status = 'FAILED' THEN t.attempt ELSE t.budget_from END
    FROM resumed r
    WHERE t.session_id = r.id AND (t.status = 'FAILED' AND NOT t.tolerated OR t.awaiting)
), told AS (
    INSERT INTO ekiden.events (session_id, type, data)
    SELECT id, 'session_resumed', json_build_object('actor', $2::text) FROM resumed
)
SELECT l.status, l.stop, EXISTS (SELECT FROM resumed) AS changed FROM locked l;

-- name: cancel_session
-- Ends a session. Nothing of it runs again; late results are refused by their tasks' state.
WITH locked AS MATERIALIZED (
    SELECT id, status, stop ->> 'kind' AS stop FROM ekiden.sessions WHERE id = $1 FOR UPDATE
), ended AS (
    UPDATE ekiden.sessions s
    SET status = 'CANCELLED', updated_at = ekiden.now(), completed_at = ekiden.now(), stop = NULL,
        waiting_since = NULL,
        waited = s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0')
    FROM locked l
    WHERE s.id = l.id AND l.status IN ('RUNNING', 'AWAITING_REVIEW', 'PAUSED', 'FAILED')
    RETURNING s.id
), live AS MATERIALIZED (
    -- Locked, and so up to date: a claim does not wait for the session's lock.
    SELECT t.id, t.status, t.attempt, t.worker_id, t.started_at FROM ekiden.api_tasks t, ended e
    WHERE t.session_id = e.id AND t.status IN ('QUEUED', 'RUNNING', 'FAILED') FOR UPDATE OF t
), dropped AS (
    UPDATE ekiden.api_tasks t SET status = 'CANCELLED', queued = false, awaiting = false
    FROM live l WHERE t.id = l.id
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
    SELECT id, attempt, worker_id, 'CANCELLED', started_at, ekiden.now() FROM live
    WHERE status = 'RUNNING'
), told AS (
    INSERT INTO ekiden.events (session_id, type, data)
    SELECT id, 'session_cancelled', json_build_object('actor', $2::text) FROM ended
)
-- Whoever runs a call for it stops: the money is not worth spending any more.
SELECT l.status, l.stop, EXISTS (SELECT FROM ended) AS changed,
       (SELECT count(pg_notify('session_cancelled', id::text)) FROM ended) AS told
FROM locked l;

-- name: get_session
-- One session with its flow.
SELECT s.id::text, f.name AS flow, f.version AS flow_version, f.title AS flow_title, s.status,
       s.phase, s.step, s.generation, s.open_tasks, s.title, s.input::text, s.auto_steps,
       s.auto_phases, s.max_retries, s.retry_delay, s.timeout, s.error::text, s.created_at,
       s.updated_at, s.completed_at, f.phases::text AS flow_phases, s.flow_id, s.created_by,
       s.parent_id::text, s.parent_phase, s.gates::text, s.models::text, s.kept, s.stop::text,
       s.waiting_since, s.archived_at,
       s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0') AS waited,
       EXISTS (SELECT FROM ekiden.workers w WHERE w.state = 'ALIVE'
               AND w.lease_until > ekiden.now() AND s.flow_id = ANY (w.flow_ids)) AS has_worker
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
WHERE s.id = $1;

-- name: list_sessions
-- Newest first; $2 a status or null, $3 the id to start after or null, $5 whether those that are
-- archived, else those that are not. Ids are in time order.
SELECT s.id::text, f.name AS flow, s.status, s.phase, s.step, s.title, s.created_at, s.updated_at,
       s.completed_at, s.archived_at
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
WHERE ($1::text IS NULL OR f.name = $1) AND ($2::text IS NULL OR s.status = $2)
  AND ($3::uuid IS NULL OR s.id < $3) AND (s.archived_at IS NOT NULL) = $5::boolean
ORDER BY s.id DESC LIMIT $4;

-- name: session_progress
-- One session with its flow and, as of the same moment: how far each step of each phase's newest
-- generation is, the attempt it waits to repeat (and whether that one only waits), what its calls
-- took (a call that broke off and whose answer was fetched later has two rows: the one with the
-- answer counts), and the revision a gate would approve. One statement, so one snapshot and one round
-- trip. The rows within have the order of StepCount, PendingRetry and SessionUsage.
SELECT s.id::text, f.name AS flow, f.version AS flow_version, f.title AS flow_title, s.status,
       s.phase, s.step, s.generation, s.open_tasks, s.title, s.input::text, s.auto_steps,
       s.auto_phases, s.max_retries, s.retry_delay, s.timeout, s.error::text, s.created_at,
       s.updated_at, s.completed_at, f.phases::text AS flow_phases, s.flow_id, s.created_by,
       s.parent_id::text, s.parent_phase, s.gates::text, s.models::text, s.kept, s.stop::text,
       s.waiting_since, s.archived_at,
       s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0') AS waited,
       EXISTS (SELECT FROM ekiden.workers w WHERE w.state = 'ALIVE'
               AND w.lease_until > ekiden.now() AND s.flow_id = ANY (w.flow_ids)) AS has_worker,
       ARRAY(SELECT DISTINCT r.phase FROM ekiden.revisions r
             WHERE r.session_id = s.id AND r.approved_at IS NOT NULL
               AND r.generation = (SELECT max(p.generation) FROM ekiden.phase_runs p
                                   WHERE p.session_id = s.id AND p.phase = r.phase)) AS approved,
       ARRAY(SELECT ROW (t.phase, p.generation, t.step, count(*),
                         count(*) FILTER (WHERE t.status = 'COMPLETED'),
                         count(*) FILTER (WHERE t.status = 'RUNNING'),
                         count(*) FILTER (WHERE t.status = 'FAILED'),
                         count(*) FILTER (WHERE t.status = 'CANCELLED'),
                         count(*) FILTER (WHERE t.queued),
                         count(*) FILTER (WHERE t.awaiting),
                         count(*) FILTER (WHERE t.tolerated),
                         min(t.started_at), max(t.completed_at))
             FROM (SELECT DISTINCT ON (n.phase) n.phase, n.generation,
                          coalesce(n.think_from, n.generation) AS think_from,
                          coalesce(n.execute_from, n.generation) AS execute_from
                   FROM ekiden.phase_runs n WHERE n.session_id = s.id
                   ORDER BY n.phase, n.generation DESC) p
             JOIN ekiden.api_tasks t
                 ON t.session_id = s.id AND t.phase = p.phase
                    AND t.generation = CASE t.step WHEN 'THINK' THEN p.think_from
                                                   WHEN 'EXECUTE' THEN p.execute_from
                                                   ELSE p.generation END
             GROUP BY t.phase, p.generation, t.step) AS counts,
       (SELECT ROW (t.id, t.phase, t.step, t.item, t.attempt, t.error::text, t.available_at,
                    (SELECT a.outcome = 'RELEASED' FROM ekiden.attempts a
                     WHERE a.task_id = t.id AND a.error IS NOT NULL
                     ORDER BY a.number DESC LIMIT 1))
        FROM ekiden.api_tasks t
        WHERE t.session_id = s.id AND t.queued AND t.error IS NOT NULL
        ORDER BY t.available_at LIMIT 1) AS retry,
       (SELECT ROW (count(*), sum(c.input_tokens), sum(c.output_tokens), sum(c.cost_usd),
                    count(*) FILTER (WHERE c.kind = 'ask' AND c.cost_usd IS NULL),
                    array_agg(DISTINCT c.provider || ':' || c.model)
                        FILTER (WHERE c.kind = 'ask' AND c.answered))
        FROM (SELECT DISTINCT ON (k.task_id, k.attempt, k.number) k.kind, k.provider, k.model,
                     k.input_tokens, k.output_tokens, k.cost_usd, k.answer IS NOT NULL AS answered
              FROM ekiden.calls k WHERE k.session_id = s.id
              ORDER BY k.task_id, k.attempt, k.number, k.answer IS NULL) c) AS usage,
       (SELECT ROW (r.id, r.complaint,
                    ARRAY(SELECT DISTINCT v.actor FROM ekiden.reviews v
                          WHERE v.revision_id = r.id AND v.verb = 'approve'))
        FROM ekiden.revisions r
        WHERE r.session_id = s.id AND r.phase = s.phase AND r.generation = s.generation
        ORDER BY r.number DESC LIMIT 1) AS standing
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
WHERE s.id = $1;


-- name: list_revisions
-- Every revision of every phase, oldest first, with its output.
SELECT r.id, r.phase, r.generation, r.number, r.author, r.created_at, r.approved_at, r.approved_by,
       r.complaint, r.comment,
       coalesce(r.output, t.result)::text AS output
FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
WHERE r.session_id = $1 ORDER BY r.phase, r.generation, r.number;

-- name: list_tasks
-- The tasks of a session in running order, those after task $2 or from the first, $3 of them or all.
-- They are chosen by their places alone: requests and results are large, and read of these only.
WITH ordered AS MATERIALIZED (
    SELECT id, row_number() OVER (
        ORDER BY phase, generation, array_position(ARRAY['THINK', 'EXECUTE', 'INTEGRATE'], step), item
    ) AS place
    FROM ekiden.api_tasks WHERE session_id = $1
), page AS MATERIALIZED (
    SELECT id, place FROM ordered
    WHERE $2::bigint IS NULL OR place > (SELECT o.place FROM ordered o WHERE o.id = $2)
    ORDER BY place LIMIT $3
)
SELECT id, phase, step, item, generation, status, queued, awaiting, tolerated, attempt, available_at,
       worker_id, request::text, result::text, error::text, created_at, started_at, completed_at
FROM page JOIN ekiden.api_tasks USING (id) ORDER BY place;

-- name: list_attempts
-- The attempts of a task that ended, and the one that runs.
SELECT a.number, a.worker_id, a.outcome, a.error::text, a.started_at, a.finished_at, a.retry_at
FROM ekiden.attempts a JOIN ekiden.api_tasks t ON t.id = a.task_id
WHERE a.task_id = $2 AND t.session_id = $1
UNION ALL
SELECT attempt, worker_id, 'RUNNING', NULL, started_at, NULL, NULL FROM ekiden.api_tasks
WHERE id = $2 AND session_id = $1 AND status = 'RUNNING'
ORDER BY 1;

-- name: list_calls
-- The ledger of a task, without the bytes.
SELECT id, attempt, number, kind, provider, model, outcome, error, http_status, input_tokens,
       output_tokens, cost_usd, octet_length(answer) AS answer_bytes, started_at, finished_at
FROM ekiden.calls WHERE session_id = $1 AND task_id = $2 ORDER BY id;

-- name: list_drafts
-- The drafts of a session ($1), or the newest of all; of its newest completion.
SELECT d.id, d.session_id::text, d.number, d.title, d.body::text, d.sources::text, d.created_at
FROM ekiden.drafts d
WHERE ($1::uuid IS NULL OR d.session_id = $1)
  AND d.generation = (SELECT max(n.generation) FROM ekiden.drafts n
                      WHERE n.session_id = d.session_id)
ORDER BY d.session_id DESC, d.number LIMIT $2;

-- name: list_events
-- A session's history after event $2, oldest first. Complete: see the lock order in 0001.
SELECT id, session_id::text, type, phase, step, task_id, data::text, created_at
FROM ekiden.events WHERE session_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- What the pages show. Nothing large: outputs beyond a size stay where they are and are counted.

-- name: page_revisions
-- Every revision of every phase, oldest first, with its output where that has at most $2 bytes.
SELECT v.id, v.phase, v.generation, v.number, v.author, v.created_at, v.approved_at, v.approved_by,
       v.complaint, v.comment, v.bytes,
       CASE WHEN v.bytes <= $2 THEN v.output END AS output
FROM (SELECT r.id, r.phase, r.generation, r.number, r.author, r.created_at, r.approved_at,
             r.approved_by, r.complaint, r.comment, octet_length(o.output) AS bytes, o.output
      FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
      CROSS JOIN LATERAL (SELECT coalesce(r.output, t.result)::text AS output OFFSET 0) o
      WHERE r.session_id = $1) v
ORDER BY v.phase, v.generation, v.number;

-- name: page_revision
-- The output of one revision, whole.
SELECT coalesce(r.output, t.result)::text AS output
FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
WHERE r.session_id = $1 AND r.id = $2;

-- name: page_tasks
-- The newest $2 tasks of a session, and whatever runs, without what they were given and made, in
-- running order.
SELECT t.id, t.phase, t.generation, t.step, t.item, t.status, t.queued, t.awaiting, t.tolerated,
       t.attempt, t.available_at, t.worker_id, t.error::text, t.created_at, t.started_at, t.completed_at
FROM (SELECT a.id, a.phase, a.generation, a.step, a.item, a.status, a.queued, a.awaiting,
             a.tolerated, a.attempt, a.available_at, a.worker_id, a.error, a.created_at,
             a.started_at, a.completed_at
      FROM ekiden.api_tasks a WHERE a.session_id = $1
      ORDER BY a.status = 'RUNNING' DESC, a.phase DESC, a.generation DESC, a.created_at DESC,
               a.item DESC LIMIT $2) t
ORDER BY t.phase, t.generation, array_position(ARRAY['THINK', 'EXECUTE', 'INTEGRATE'], t.step),
         t.item;

-- name: page_task_count
-- How many tasks a session has.
SELECT count(*) AS tasks FROM ekiden.api_tasks WHERE session_id = $1;

-- name: page_phases
-- The phases of a session that were begun, or that a fork shares.
SELECT DISTINCT phase FROM ekiden.phase_runs WHERE session_id = $1 ORDER BY phase;

-- name: page_attempts
-- The attempts of these tasks that ended.
SELECT a.task_id, a.number, a.outcome, a.started_at, a.finished_at, a.retry_at
FROM ekiden.attempts a WHERE a.task_id = ANY ($1::bigint[]) ORDER BY a.task_id, a.number;

-- name: page_calls
-- The calls of a session, without their bytes; at most $2.
SELECT c.task_id, c.attempt, c.number, c.kind, c.provider, c.model, c.outcome, c.started_at,
       c.finished_at
FROM ekiden.calls c WHERE c.session_id = $1 ORDER BY c.id LIMIT $2;

-- name: page_output_schema
-- The schema of the output of a phase, in the version of the flow that the session keeps.
SELECT (f.output_schemas -> ($2::int - 1))::text AS schema
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id WHERE s.id = $1;

-- name: page_said
-- What each running attempt of a session has said so far: its last $2 characters, and how many.
SELECT p.task_id, p.attempt, p.call, right(p.text, $2) AS text, length(p.text) AS length
FROM (SELECT p.task_id, p.attempt, p.call, string_agg(p.text, '' ORDER BY p.seq) AS text
      FROM ekiden.api_tasks t
      JOIN ekiden.partials p ON p.session_id = t.session_id AND p.task_id = t.id
                            AND p.attempt = t.attempt
      WHERE t.session_id = $1 AND t.status = 'RUNNING'
      GROUP BY p.task_id, p.attempt, p.call) p
ORDER BY p.task_id, p.attempt, p.call;

-- name: page_task
-- One task of a session with what it was given and made, each up to $3 characters.
SELECT t.id, t.phase, t.generation, t.step, t.item, t.status, t.queued, t.awaiting, t.tolerated,
       t.attempt, t.available_at, t.worker_id, t.error::text, t.created_at, t.started_at, t.completed_at,
       left(t.request::text, $3) AS request, length(t.request::text) AS request_length,
       left(t.result::text, $3) AS result, length(t.result::text) AS result_length
FROM ekiden.api_tasks t WHERE t.session_id = $1 AND t.id = $2;

-- name: page_task_calls
-- The ledger of a task with the bytes of each call, up to $3 of them.
SELECT c.id, c.attempt, c.number, c.kind, c.provider, c.model, c.outcome, c.error AS failure,
       c.http_status, c.input_tokens, c.output_tokens, c.cost_usd, c.started_at, c.finished_at,
       substring(c.request FROM 1 FOR $3) AS request, octet_length(c.request) AS request_bytes,
       substring(c.answer FROM 1 FOR $3) AS answer, octet_length(c.answer) AS answer_bytes
FROM ekiden.calls c WHERE c.session_id = $1 AND c.task_id = $2 ORDER BY c.id;

-- name: page_recent_tasks
-- Of the newest $1 tasks those that ended: when, and how.
SELECT t.status, coalesce(t.completed_at, t.started_at) AS ended_at
FROM (SELECT a.status, a.started_at, a.completed_at
      FROM ekiden.api_tasks a ORDER BY a.id DESC LIMIT $1) t
WHERE t.status IN ('COMPLETED', 'FAILED') AND t.started_at IS NOT NULL;

-- name: page_last_event
-- The id of the newest event of a session: what a page shows is at least as new.
SELECT coalesce(max(e.id), 0) AS id FROM ekiden.events e WHERE e.session_id = $1;

-- name: page_now
-- The database's clock, which every time shown is measured by.
SELECT ekiden.now() AS now;

-- What the pages show. Nothing large: outputs beyond a size stay where they are and are counted.

-- name: page_sessions
-- Newest first: flow $1, statuses $2, words in the title $3 and after the id $4, each or null; $6:
-- those that are archived, else those that are not. With each the title of its phase, whether tasks
-- of it are held, and what its calls cost as far as prices are known (of a call that broke off and
-- was fetched later, the row with the answer).
-- Planned anew each time (see Pages.sessions): only then does it know which index fits, and that a
-- search reads nothing but the titles in it. Lower case is four fifths of such a search, so words
-- that have none ($7 false), such as Japanese ones, do without.
WITH found AS MATERIALIZED (
    SELECT s.id FROM ekiden.sessions s
    WHERE ($1::text IS NULL OR s.flow_id IN (SELECT f.id FROM ekiden.flows f WHERE f.name = $1))
      AND ($2::text[] IS NULL OR s.status = ANY ($2))
      AND ($3::text IS NULL
           OR CASE WHEN $7::boolean THEN position(lower($3) IN lower(s.title))
                   ELSE position($3 IN s.title) END > 0)
      AND ($4::uuid IS NULL OR s.id < $4)
      AND CASE WHEN $6::boolean THEN s.archived_at IS NOT NULL ELSE s.archived_at IS NULL END
    ORDER BY s.id DESC LIMIT $5
)
SELECT l.id::text, f.name AS flow, f.title AS flow_title, l.status, l.phase, l.step, l.title,
       l.created_at, l.updated_at, l.completed_at, l.archived_at, l.stop ->> 'kind' AS stop,
       f.phases::text AS flow_phases,
       EXISTS (SELECT FROM ekiden.api_tasks t WHERE t.session_id = l.id AND t.awaiting) AS held,
       (SELECT sum(c.cost_usd)
        FROM (SELECT DISTINCT ON (k.task_id, k.attempt, k.number) k.cost_usd
              FROM ekiden.calls k WHERE k.session_id = l.id
              ORDER BY k.task_id, k.attempt, k.number, k.answer IS NULL) c) AS cost_usd
FROM found JOIN ekiden.sessions l ON l.id = found.id JOIN ekiden.flows f ON f.id = l.flow_id
ORDER BY l.id DESC;

-- name: plan_anew
-- Lets the statements of this transaction be planned for what they are asked.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: page_waiting
-- What waits for a person, longest first; at most $1.
WITH waiting AS MATERIALIZED (
    (SELECT s.id, s.waiting_since AS since FROM ekiden.sessions s
     WHERE s.waiting_since IS NOT NULL ORDER BY s.waiting_since, s.id LIMIT $1)
    UNION ALL
    SELECT s.id, s.updated_at FROM ekiden.sessions s
    WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED') AND s.waiting_since IS NULL
      AND s.archived_at IS NULL
      AND (s.status <> 'RUNNING'
           OR EXISTS (SELECT FROM ekiden.api_tasks t WHERE t.session_id = s.id AND t.awaiting))
    ORDER BY since, id LIMIT $1
)
SELECT s.id::text, f.name AS flow, f.title AS flow_title, s.status, s.phase, s.step, s.title,
       s.created_at, w.since AS updated_at, s.completed_at, s.archived_at,
       f.phases::text AS flow_phases,
       s.status = 'RUNNING' AS held, s.stop ->> 'kind' AS stop, NULL::numeric AS cost_usd
FROM waiting w JOIN ekiden.sessions s ON s.id = w.id JOIN ekiden.flows f ON f.id = s.flow_id
ORDER BY w.since, s.id;

-- name: page_waiting_count
-- How many sessions wait at a gate or a stop, or FAILED, up to $1: the number beside the inbox.
SELECT count(*) FROM (
    SELECT FROM ekiden.sessions WHERE waiting_since IS NOT NULL
    UNION ALL
    SELECT FROM ekiden.sessions WHERE status IN ('RUNNING', 'PAUSED', 'FAILED')
                                  AND status = 'FAILED' AND archived_at IS NULL
    LIMIT $1
) w;

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
-- The newest $2 tasks of a session without what they were given and made, in running order.
SELECT t.id, t.phase, t.generation, t.step, t.item, t.status, t.queued, t.awaiting, t.tolerated,
       t.attempt, t.available_at, t.worker_id, t.error::text, t.created_at, t.started_at, t.completed_at
FROM (SELECT a.id, a.phase, a.generation, a.step, a.item, a.status, a.queued, a.awaiting,
             a.tolerated, a.attempt, a.available_at, a.worker_id, a.error, a.created_at,
             a.started_at, a.completed_at
      FROM ekiden.api_tasks a WHERE a.session_id = $1
      ORDER BY a.phase DESC, a.generation DESC, a.created_at DESC, a.item LIMIT $2) t
ORDER BY t.phase, t.generation, array_position(ARRAY['THINK', 'EXECUTE', 'INTEGRATE'], t.step),
         t.item;

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

-- name: page_drafts
-- Drafts with the session they come from, newest first: of a status $1 or, when null, of all that
-- are not archived, with ids below $2 or from the newest; $4 is one session or null.
SELECT d.id, d.session_id::text, d.generation, d.number, d.title, d.body::text, d.sources::text, d.created_at,
       d.status, d.changed_by, d.changed_at, s.title AS session_title, f.name AS flow
FROM ekiden.drafts d JOIN ekiden.sessions s ON s.id = d.session_id
JOIN ekiden.flows f ON f.id = s.flow_id
WHERE CASE WHEN $1::text IS NULL THEN d.status <> 'ARCHIVED' ELSE d.status = $1 END
  AND ($2::bigint IS NULL OR d.id < $2) AND ($4::uuid IS NULL OR d.session_id = $4)
ORDER BY d.id DESC LIMIT $3;

-- name: page_flow_history
-- What the newest $2 completed sessions of a flow took: how many they are, what those cost whose
-- every price is known, and their time without what people took, in seconds.
SELECT count(*) AS sessions, count(c.cost_usd) AS priced, min(c.cost_usd) AS least,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY c.cost_usd) AS cost, max(c.cost_usd) AS most,
       min(s.seconds) AS quickest, max(s.seconds) AS slowest,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY s.seconds) AS seconds
FROM (SELECT n.id,
             extract(epoch FROM n.completed_at - n.created_at - n.waited)::float8 AS seconds
      FROM ekiden.sessions n
      WHERE n.flow_id IN (SELECT f.id FROM ekiden.flows f WHERE f.name = $1)
        AND n.status = 'COMPLETED' ORDER BY n.id DESC LIMIT $2) s
CROSS JOIN LATERAL (
    SELECT CASE WHEN bool_and(k.cost_usd IS NOT NULL OR k.kind <> 'ask') THEN sum(k.cost_usd) END
           AS cost_usd
    FROM ekiden.calls k WHERE k.session_id = s.id
) c;

-- name: page_models
-- The models that living workers answer with, and those that lately answered (of the newest $1 calls).
SELECT w.model AS name FROM ekiden.workers w
WHERE w.state = 'ALIVE' AND w.lease_until > ekiden.now() AND w.model LIKE '%:%'
UNION
SELECT k.provider || ':' || k.model
FROM (SELECT c.kind, c.provider, c.model, c.outcome FROM ekiden.calls c ORDER BY c.id DESC LIMIT $1) k
WHERE k.kind = 'ask' AND k.outcome = 'ANSWERED'
ORDER BY name;

-- name: page_draft_counts
-- How many drafts there are of each status.
SELECT d.status, count(*) AS drafts FROM ekiden.drafts d GROUP BY d.status;

-- name: move_draft
-- Gives a draft another status, if it still has the one that was seen ($3).
UPDATE ekiden.drafts SET status = $2, changed_by = $4, changed_at = ekiden.now()
WHERE id = $1 AND status = $3
RETURNING id;

-- name: edit_draft
-- Gives a draft another title and body, if nobody changed it since ($4, null for never).
UPDATE ekiden.drafts SET title = $2, body = $3::json, changed_by = $5, changed_at = ekiden.now()
WHERE id = $1 AND changed_at IS NOT DISTINCT FROM $4::timestamptz
RETURNING id;

-- name: get_draft
-- One draft with the session it comes from.
SELECT d.id, d.session_id::text, d.generation, d.number, d.title, d.body::text, d.sources::text,
       d.created_at, d.status, d.changed_by, d.changed_at, s.title AS session_title, f.name AS flow
FROM ekiden.drafts d JOIN ekiden.sessions s ON s.id = d.session_id
JOIN ekiden.flows f ON f.id = s.flow_id WHERE d.id = $1;

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

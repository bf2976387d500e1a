-- Lists of sessions as the pages show them, and what a new one may be told.

-- name: page_sessions
-- Newest first: flow $1, statuses $2, words in the title $3 and after the id $4, each or null; $6:
-- those that are archived, else those that are not. With each the title of its phase, whether tasks
-- of it are held, and what its calls cost as far as prices are known (of a call that broke off and
-- was fetched later, the row with the answer).
-- Planned anew each time (see Lists.sessions): only then does it know which index fits, and that a
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

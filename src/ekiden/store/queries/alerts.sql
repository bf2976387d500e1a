-- Alerts: what is read now and then, and what was raised. Nothing here is on the path of a step.

-- name: take_alert_turn
-- Takes the turn to look, or returns no row: when somebody else has it or had it within $1, and when
-- nobody is told of alerts and none is open. ``wanted``: somebody is told.
SELECT t.wanted
FROM ekiden.alert_watch a
CROSS JOIN (SELECT EXISTS (SELECT FROM ekiden.webhooks
                           WHERE stopped_at IS NULL
                             AND events && ARRAY['alert.raised', 'alert.resolved']) AS wanted) t
WHERE a.looked_at <= ekiden.now() - $1::interval
  AND (t.wanted OR EXISTS (SELECT FROM ekiden.alerts WHERE resolved_at IS NULL))
FOR UPDATE OF a SKIP LOCKED;

-- name: end_alert_turn
-- Says that somebody looked, and lets go of alerts that were resolved longer than $1 ago, with their
-- deliveries.
WITH gone AS (
    DELETE FROM ekiden.alerts WHERE resolved_at < ekiden.now() - $1::interval
)
UPDATE ekiden.alert_watch SET looked_at = ekiden.now();

-- name: read_error_rates
-- Of each flow, how many attempts ended within $1 and how many of them so ($2).
SELECT s.flow, sum(r.n)::bigint AS attempts,
       coalesce(sum(r.n) FILTER (WHERE s.outcome = ANY ($2::text[])), 0)::bigint AS wrong
FROM ekiden.metric_rollups r JOIN ekiden.metric_series s ON s.id = r.series_id
WHERE r.width = 'minute' AND s.measure = 'attempt'
  AND r.since >= date_trunc('minute', ekiden.now() - $1::interval, 'UTC')
GROUP BY s.flow;

-- name: read_uncounted
-- How many attempts that ended within $1, but longer than $2 ago, are in no error rate yet: counting is
-- held up. (Not EXISTS: there the planner bets on a hit, and without one reads all attempts ever made.)
SELECT count(*) FROM ekiden.attempts
WHERE finished_at >= greatest((SELECT rolled_to FROM ekiden.metric_watermark),
                              ekiden.now() - $1::interval)
  AND finished_at < ekiden.now() - $2::interval;

-- name: read_queue_age
-- How long the oldest due task has been due, in seconds; no row when none is.
SELECT extract(epoch FROM ekiden.now() - available_at)::float8 AS seconds
FROM ekiden.api_tasks WHERE queued AND available_at <= ekiden.now()
ORDER BY available_at, id LIMIT 1;

-- name: read_still_sessions
-- RUNNING sessions of which no task ended for $1, the stillest first, at most $2. One that waits for a
-- person to start its step is not still: it is held.
SELECT s.id::text AS session_id, f.name AS flow, s.phase, s.step,
       extract(epoch FROM ekiden.now() - s.updated_at)::float8 AS seconds
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
WHERE s.status = 'RUNNING' AND s.updated_at <= ekiden.now() - $1::interval
  AND NOT EXISTS (SELECT FROM ekiden.api_tasks t WHERE t.session_id = s.id AND t.awaiting)
ORDER BY s.updated_at, s.id LIMIT $2;

-- name: read_budgets
-- Of sessions that go on and have a budget, the share of it that is spent, where that is $1 or more; the
-- largest first, at most $2. Phase 0 is the session as a whole. A call that was fetched later has two
-- rows, and only the one with the answer counts.
WITH going AS (
    SELECT id, flow_id FROM ekiden.sessions WHERE status IN ('RUNNING', 'PAUSED')
    UNION ALL
    SELECT id, flow_id FROM ekiden.sessions
    WHERE waiting_since IS NOT NULL AND status = 'AWAITING_REVIEW'
)
SELECT s.id::text AS session_id, f.name AS flow, b.phase, c.share::float8 AS share
FROM going s
JOIN ekiden.budgets b ON b.session_id = s.id
JOIN ekiden.flows f ON f.id = s.flow_id
CROSS JOIN LATERAL (
    SELECT greatest(sum(k.cost_usd) / nullif(b.max_cost_usd, 0),
                    sum(k.tokens)::numeric / nullif(b.max_tokens, 0)) AS share
    FROM (SELECT DISTINCT ON (c.task_id, c.attempt, c.number) t.phase, c.cost_usd,
                 coalesce(c.input_tokens, 0) + coalesce(c.output_tokens, 0) AS tokens
          FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
          WHERE c.session_id = s.id
          ORDER BY c.task_id, c.attempt, c.number, c.answer IS NULL) k
    WHERE b.phase IN (0, k.phase)
) c
WHERE c.share >= $1::float8
ORDER BY c.share DESC, s.id, b.phase LIMIT $2;

-- name: read_lost_workers
-- How many workers were lost within $1; while nobody is here, within a day.
SELECT count(*) FILTER (WHERE w.lost AND w.seen_at > ekiden.now() - CASE WHEN here.alive
                        THEN $1::interval ELSE interval '1 day' END) AS n
FROM (SELECT seen_at, state = 'LOST' OR state IN ('ALIVE', 'DRAINING')
                      AND lease_until <= ekiden.now() AS lost
      FROM ekiden.workers) w
CROSS JOIN (SELECT EXISTS (SELECT FROM ekiden.workers WHERE state = 'ALIVE'
                           AND lease_until > ekiden.now()) AS alive) here;

-- name: raise_alert
-- Raises an alert and owes it to whoever is told; no row when it is open already.
WITH raised AS (
    INSERT INTO ekiden.alerts (kind, subject, flow, session_id, phase, step, value, threshold)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (kind, subject) WHERE resolved_at IS NULL DO NOTHING
    RETURNING id
), told AS (
    INSERT INTO ekiden.errands (kind, alert_id, event, webhook_id)
    SELECT 'webhook', r.id, 'alert.raised', w.id FROM raised r
    JOIN ekiden.webhooks w ON w.stopped_at IS NULL AND 'alert.raised' = ANY (w.events)
)
SELECT id FROM raised;

-- name: resolve_alert
-- Says that an alert is over, and owes that to whoever is told; no row when somebody said so before.
WITH over AS (
    UPDATE ekiden.alerts SET resolved_at = ekiden.now() WHERE id = $1 AND resolved_at IS NULL
    RETURNING id
), told AS (
    INSERT INTO ekiden.errands (kind, alert_id, event, webhook_id)
    SELECT 'webhook', o.id, 'alert.resolved', w.id FROM over o
    JOIN ekiden.webhooks w ON w.stopped_at IS NULL AND 'alert.resolved' = ANY (w.events)
)
SELECT id FROM over;

-- name: list_alerts
-- The newest alerts, at most $2; only those that are not over ($1), or all.
SELECT id, kind, subject, flow, session_id::text, phase, step, value, threshold, raised_at,
       resolved_at
FROM ekiden.alerts WHERE NOT $1::boolean OR resolved_at IS NULL
ORDER BY id DESC LIMIT $2;

-- name: get_alert
-- One alert.
SELECT id, kind, subject, flow, session_id::text, phase, step, value, threshold, raised_at,
       resolved_at
FROM ekiden.alerts WHERE id = $1;

-- name: open_alerts_now
-- How many alerts of each kind are open.
SELECT kind, count(*) AS n FROM ekiden.alerts WHERE resolved_at IS NULL GROUP BY kind;

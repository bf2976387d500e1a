-- Measures of what was, kept as sums by minute, by hour and for ever; and of what is now.

-- name: metric_watermark
-- Up to when the past is counted, and the database's time.
SELECT rolled_to, ekiden.now() AS now FROM ekiden.metric_watermark;

-- name: take_metric_turn
-- Takes the turn to roll up, or returns no row when somebody else has it. The horizon is the moment
-- before which no row can still appear: every row bears the time of the statement that writes it, so
-- it is before what any of our own statements ($2 is how they call themselves) began at, and $1
-- before now, for one that is so young that it does not show yet. Whoever waits for a life sign (an advisory lock) writes nothing.
SELECT rolled_to, least(
    ekiden.now() - $1::interval,
    (SELECT min(a.xact_start) FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.application_name = $2
       AND a.state <> 'idle' AND a.wait_event IS DISTINCT FROM 'advisory')) AS horizon
FROM ekiden.metric_watermark FOR UPDATE SKIP LOCKED;

-- name: roll_up
-- Adds what ended from $1 up to, not including, $2. Its snapshot must be younger than the horizon.
-- The measures, and what their seconds are:
--   attempt  one try of a task, from start to end
--   wait     before that try: from when the task was due until it was claimed
--   step     a step of which every task is COMPLETED, from its first attempt to its last result
--   session  a COMPLETED session, from its creation
--   call     a request to a model or a source
--   human    a review, from when its gate opened, or from the review before
-- A call that broke off and whose answer was fetched later has two rows, and both may say what it
-- took: the second adds only what the first did not have. The kind of an error is found without
-- reading its JSON: one that PostgreSQL cannot read must not hold everything up. A source that says
-- how much it holds is the same source when it holds more.
-- Each row's task is fetched by its key, hence LATERAL with LIMIT: the planner, which cannot know how
-- little is new, would read all tasks to join them.
WITH ended AS MATERIALIZED (
    SELECT f.name AS flow, t.session_id, t.phase, t.step, t.generation, a.outcome,
           CASE WHEN a.error IS NOT NULL
                THEN coalesce(substring(a.error::text FROM '"kind"\s*:\s*"([^"\\]{1,80})'), 'Unknown')
                WHEN a.outcome = 'LOST' THEN 'WorkerLost' ELSE '' END AS error,
           a.started_at, a.finished_at,
           greatest(t.created_at, b.retry_at,
                    CASE WHEN t.available_at <= a.started_at THEN t.available_at END) AS due
    FROM ekiden.attempts a
    CROSS JOIN LATERAL (SELECT session_id, flow_id, phase, step, generation, created_at, available_at
                        FROM ekiden.api_tasks WHERE id = a.task_id LIMIT 1) t
    JOIN ekiden.flows f ON f.id = t.flow_id
    LEFT JOIN LATERAL (SELECT retry_at FROM ekiden.attempts
                       WHERE task_id = a.task_id AND number = a.number - 1 LIMIT 1) b ON true
    WHERE a.finished_at >= $1::timestamptz AND a.finished_at < $2::timestamptz
), closed AS (
    SELECT e.flow, e.phase, e.step, c.at, c.began
    FROM (SELECT DISTINCT flow, session_id, phase, step, generation FROM ended
          WHERE outcome = 'COMPLETED') e
    CROSS JOIN LATERAL (
        SELECT bool_and(t.status = 'COMPLETED') AS closed, max(t.completed_at) AS at,
               min(a.started_at) AS began
        FROM ekiden.api_tasks t
        LEFT JOIN ekiden.attempts a ON a.task_id = t.id AND a.number = 1
        WHERE t.session_id = e.session_id AND t.phase = e.phase AND t.generation = e.generation
          AND t.step = e.step
    ) c
    WHERE c.closed AND c.at >= $1::timestamptz AND c.at < $2::timestamptz
), facts AS (
    SELECT 'attempt' AS measure, flow, phase, step, '' AS source, outcome, error,
           finished_at AS at, finished_at - started_at AS took,
           0 AS input_tokens, 0 AS output_tokens, 0::numeric AS cost_usd, 0 AS unpriced
    FROM ended
    UNION ALL
    SELECT 'wait', flow, phase, step, '', '', '', finished_at, started_at - due, 0, 0, 0, 0
    FROM ended
    UNION ALL
    SELECT 'step', flow, phase, step, '', '', '', at, at - began, 0, 0, 0, 0 FROM closed
    UNION ALL
    SELECT DISTINCT ON (s.id) 'session', e.flow, 0::smallint, '', '', s.status, '', s.completed_at,
           s.completed_at - s.created_at, 0, 0, 0::numeric, 0
    FROM ended e
    CROSS JOIN LATERAL (SELECT id, status, created_at, completed_at FROM ekiden.sessions
                        WHERE id = e.session_id LIMIT 1) s
    WHERE s.completed_at = e.finished_at AND s.status = 'COMPLETED'
    UNION ALL
    SELECT 'call', f.name, t.phase, t.step,
           left(c.provider || ':' || regexp_replace(c.model, ' \([0-9,]+\)$', ''), 200),
           c.outcome, '', c.finished_at, c.finished_at - c.started_at,
           greatest(0, c.input_tokens - coalesce(b.input_tokens, 0)),
           greatest(0, c.output_tokens - coalesce(b.output_tokens, 0)),
           greatest(0, c.cost_usd - coalesce(b.cost_usd, 0)),
           (c.kind = 'ask' AND c.cost_usd IS NULL)::int
    FROM ekiden.calls c
    CROSS JOIN LATERAL (SELECT flow_id, phase, step FROM ekiden.api_tasks WHERE id = c.task_id LIMIT 1) t
    JOIN ekiden.flows f ON f.id = t.flow_id
    LEFT JOIN LATERAL (SELECT input_tokens, output_tokens, cost_usd FROM ekiden.calls
                       WHERE task_id = c.task_id AND attempt = c.attempt AND number = c.number
                         AND answer IS NULL AND c.answer IS NOT NULL LIMIT 1) b ON true
    WHERE c.finished_at >= $1::timestamptz AND c.finished_at < $2::timestamptz
    UNION ALL
    SELECT 'human', f.name, r.phase, '', '', r.verb, '', r.created_at, r.created_at - g.since,
           0, 0, 0, 0
    FROM ekiden.reviews r
    CROSS JOIN LATERAL (SELECT flow_id FROM ekiden.sessions WHERE id = r.session_id LIMIT 1) s
    JOIN ekiden.flows f ON f.id = s.flow_id
    CROSS JOIN LATERAL (
        SELECT max(seen.created_at) AS since
        FROM (SELECT e.created_at FROM ekiden.events e
              WHERE e.session_id = r.session_id AND e.type = 'gate_opened' AND e.phase = r.phase
                AND e.created_at <= r.created_at
              UNION ALL
              SELECT b.created_at FROM ekiden.reviews b
              WHERE b.session_id = r.session_id AND b.phase = r.phase AND b.id < r.id) seen
    ) g
    WHERE r.created_at >= $1::timestamptz AND r.created_at < $2::timestamptz
), measured AS (
    SELECT f.*, greatest(0, coalesce(extract(epoch FROM took), 0))::float8 AS seconds FROM facts f
)
INSERT INTO ekiden.metric_rollups AS r (width, since, measure, flow, phase, step, source, outcome,
                                        error, bucket, n, seconds, input_tokens, output_tokens,
                                        cost_usd, unpriced)
SELECT w.width,
       CASE w.width WHEN 'ever' THEN '-infinity'::timestamptz
                    ELSE date_trunc(w.width, m.at, 'UTC') END,
       m.measure, m.flow, m.phase, m.step, m.source, m.outcome, m.error, b.bucket, count(*),
       sum(m.seconds), sum(coalesce(m.input_tokens, 0)), sum(coalesce(m.output_tokens, 0)),
       sum(coalesce(m.cost_usd, 0)), sum(m.unpriced)
FROM measured m
CROSS JOIN LATERAL (
    SELECT greatest(0, ceil(ln(greatest(m.seconds * 1000, 1)) / ln($3::float8)))::smallint AS bucket
) b
CROSS JOIN unnest(ARRAY['minute', 'hour', 'ever']) AS w(width)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
ON CONFLICT (width, since, measure, flow, phase, step, source, outcome, error, bucket) DO UPDATE
SET n = r.n + excluded.n, seconds = r.seconds + excluded.seconds,
    input_tokens = r.input_tokens + excluded.input_tokens,
    output_tokens = r.output_tokens + excluded.output_tokens,
    cost_usd = r.cost_usd + excluded.cost_usd, unpriced = r.unpriced + excluded.unpriced;

-- name: end_metric_turn
-- Says that everything before $1 is counted, and lets go of minutes older than $2 and hours older
-- than $3.
WITH minutes AS (
    DELETE FROM ekiden.metric_rollups WHERE width = 'minute' AND since < ekiden.now() - $2::interval
), hours AS (
    DELETE FROM ekiden.metric_rollups WHERE width = 'hour' AND since < ekiden.now() - $3::interval
)
UPDATE ekiden.metric_watermark SET rolled_to = $1;

-- name: metric_facts
-- The sums of a window: $1 width, from $2, before $3 (null: however far); of one flow ($4) or all.
SELECT measure, flow, phase, step, source, outcome, error, bucket, sum(n)::bigint AS n,
       sum(seconds) AS seconds, sum(input_tokens)::bigint AS input_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(cost_usd) AS cost_usd,
       sum(unpriced)::bigint AS unpriced
FROM ekiden.metric_rollups
WHERE width = $1 AND since >= coalesce($2::timestamptz, '-infinity')
  AND since < coalesce($3::timestamptz, 'infinity') AND ($4::text IS NULL OR flow = $4)
GROUP BY measure, flow, phase, step, source, outcome, error, bucket;

-- name: queue_now
-- What waits to be claimed: due, for later, and since when the oldest is due, in seconds.
SELECT count(*) FILTER (WHERE available_at <= ekiden.now()) AS due,
       count(*) FILTER (WHERE available_at > ekiden.now()) AS later,
       extract(epoch FROM ekiden.now() - min(available_at)
               FILTER (WHERE available_at <= ekiden.now()))::float8 AS oldest_s
FROM ekiden.api_tasks
WHERE queued AND ($1::text IS NULL OR flow_id IN (SELECT id FROM ekiden.flows WHERE name = $1));

-- name: open_sessions_now
-- Sessions that have not ended, by status.
SELECT status, count(*) AS n FROM ekiden.sessions
WHERE status IN ('RUNNING', 'PAUSED', 'FAILED')
  AND ($1::text IS NULL OR flow_id IN (SELECT id FROM ekiden.flows WHERE name = $1))
GROUP BY status
UNION ALL
SELECT 'AWAITING_REVIEW', count(*) FROM ekiden.sessions
WHERE status = 'AWAITING_REVIEW'
  AND ($1::text IS NULL OR flow_id IN (SELECT id FROM ekiden.flows WHERE name = $1))
HAVING count(*) > 0;

-- name: workers_now
-- Workers by state, with what they run and could run; those that left, for a day.
SELECT state, count(*) AS n, sum(busy)::int AS busy, sum(capacity)::int AS capacity
FROM (SELECT CASE WHEN state IN ('ALIVE', 'DRAINING') AND lease_until <= ekiden.now() THEN 'LOST'
                  ELSE state END AS state, busy, capacity
      FROM ekiden.workers
      WHERE state IN ('ALIVE', 'DRAINING') OR seen_at > ekiden.now() - interval '1 day') w
GROUP BY state;

-- name: database_now
-- How PostgreSQL is: the share of the notification queue that is used (a listener that does not
-- read holds it), what holds back vacuum, and what vacuum has left to do here.
SELECT pg_notification_queue_usage() AS notify_queue_usage,
       (SELECT max(age(backend_xmin)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()) AS oldest_snapshot_xids,
       (SELECT greatest(0, extract(epoch FROM clock_timestamp() - min(xact_start)))::float8
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)) AS oldest_snapshot_s,
       (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
        WHERE schemaname = 'ekiden') AS dead_tuples,
       (SELECT coalesce(sum(n_live_tup), 0)::bigint FROM pg_stat_user_tables
        WHERE schemaname = 'ekiden') AS live_tuples,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections,
       current_setting('max_connections')::int AS max_connections;

-- Measures of what was, kept as sums by minute, by hour and for ever; and of what is now.

-- name: metric_watermark
-- Up to when the past is counted, and the database's time.
SELECT rolled_to, ekiden.now() AS now FROM ekiden.metric_watermark;

-- name: take_metric_turn
-- Takes the turn to roll up, or returns no row when somebody else has it. The horizon is the moment
-- before which no row can still appear: every row bears the time of the statement that writes it, so
-- it is before what any of our own statements ($2 is how they call themselves) began at, and $1
-- before now, for one that is so young that it does not show yet. Whoever waits for a life sign (an
-- advisory lock) writes nothing. What a busy turn counts fits into $3 of memory and not into
-- PostgreSQL's default, and would go through a file.
SELECT rolled_to, set_config('work_mem', $3, true), least(
    ekiden.now() - $1::interval,
    (SELECT min(a.xact_start) FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.application_name = $2
       AND a.state <> 'idle' AND a.wait_event IS DISTINCT FROM 'advisory')) AS horizon
FROM ekiden.metric_watermark FOR UPDATE SKIP LOCKED;

-- name: roll_up
-- Adds what ended from $1 up to, not including, $2; $3 is the logarithm of the buckets' growth. Its
-- snapshot must be younger than the horizon. The measures, and what their seconds are:
--   attempt  one try of a task, from start to end
--   wait     before that try: from when the task was due until it was claimed
--   step     a step of which every task is COMPLETED, from its first attempt to its last result
--   session  a COMPLETED session, from its creation
--   call     a request to a model or a source
--   token    a streamed call, from the request to the first text
--   human    a review that its session waited for, from when it began to wait
-- A call that broke off and whose answer was fetched later has two rows, and both may say what it
-- took: the second adds only what the first did not have. The kind of an error is found without
-- reading its JSON: one that PostgreSQL cannot read must not hold everything up. A source that says
-- how much it holds is the same source when it holds more.
--
-- This runs beside the hand-off, once for each of its attempts, so every look-up counts: a task is
-- fetched by its key (LATERAL with LIMIT: the planner, which cannot know how little is new, would read
-- all tasks to join them), siblings only of a fan-out, sessions only after the last step of their
-- flow, everything is summed by the minute before it is summed by anything longer, attempts once for
-- all that is measured of them. (date_bin: the same minutes as date_trunc, which looks up UTC's name
-- for every row.)
WITH flow AS MATERIALIZED (
    SELECT id, name, jsonb_array_length(phases) AS last_phase FROM ekiden.flows
), ended AS MATERIALIZED (
    SELECT t.flow_id, t.session_id, t.phase, t.step, t.generation, t.fans_out, a.outcome,
           CASE WHEN a.error IS NOT NULL
                THEN coalesce(substring(a.error::text FROM '"kind"\s*:\s*"([^"\\]{1,80})'), 'Unknown')
                WHEN a.outcome = 'LOST' THEN 'WorkerLost' ELSE '' END AS error,
           a.finished_at, date_bin('1 min', a.finished_at, 'epoch') AS minute,
           greatest(0, date_part('epoch', a.finished_at - a.started_at)) AS run_s,
           greatest(0, date_part('epoch', a.started_at - greatest(
               t.created_at,
               CASE WHEN a.number > 1
                    THEN (SELECT b.retry_at FROM ekiden.attempts b
                          WHERE b.task_id = a.task_id AND b.number = a.number - 1) END,
               CASE WHEN t.available_at <= a.started_at THEN t.available_at END))) AS wait_s,
           greatest(0, date_part('epoch', a.finished_at - CASE WHEN a.number > 1
               THEN (SELECT min(b.started_at) FROM ekiden.attempts b WHERE b.task_id = a.task_id)
               ELSE a.started_at END)) AS wall_s
    FROM ekiden.attempts a
    CROSS JOIN LATERAL (SELECT flow_id, session_id, phase, step, generation, created_at,
                               available_at, request IS NOT NULL AS fans_out
                        FROM ekiden.api_tasks WHERE id = a.task_id LIMIT 1) t
    WHERE a.finished_at >= $1::timestamptz AND a.finished_at < $2::timestamptz
), facts AS (
    SELECT 'step' AS measure, e.flow_id, e.phase, e.step, '' AS source, '' AS outcome,
           date_bin('1 min', c.at, 'epoch') AS minute,
           greatest(0, date_part('epoch', c.at - c.began)) AS seconds,
           0 AS input_tokens, 0 AS output_tokens, 0::numeric AS cost_usd, 0 AS unpriced
    FROM (SELECT DISTINCT flow_id, session_id, phase, step, generation FROM ended
          WHERE fans_out AND outcome IN ('COMPLETED', 'FAILED')) e
    CROSS JOIN LATERAL (
        SELECT bool_and(t.status = 'COMPLETED' OR t.tolerated) AS closed, max(l.finished_at) AS at,
               min(a.started_at) AS began
        FROM ekiden.api_tasks t
        LEFT JOIN ekiden.attempts a ON a.task_id = t.id AND a.number = 1
        LEFT JOIN ekiden.attempts l ON l.task_id = t.id AND l.number = t.attempt
        WHERE t.session_id = e.session_id AND t.phase = e.phase AND t.generation = e.generation
          AND t.step = e.step
    ) c
    WHERE c.closed AND c.at >= $1::timestamptz AND c.at < $2::timestamptz
    UNION ALL
    SELECT 'session', e.flow_id, 0::smallint, '', '', s.status, e.minute,
           greatest(0, date_part('epoch', s.completed_at - s.created_at)), 0, 0, 0, 0
    FROM ended e
    JOIN flow f ON f.id = e.flow_id AND f.last_phase = e.phase
    CROSS JOIN LATERAL (SELECT status, created_at, completed_at FROM ekiden.sessions
                        WHERE id = e.session_id LIMIT 1) s
    WHERE e.step = 'INTEGRATE' AND e.outcome = 'COMPLETED' AND s.status = 'COMPLETED'
      AND s.completed_at = e.finished_at
    UNION ALL
    SELECT 'call', t.flow_id, t.phase, t.step,
           left(c.provider || ':' || regexp_replace(c.model, ' \([0-9,]+\)$', ''), 200),
           c.outcome, date_bin('1 min', c.finished_at, 'epoch'),
           greatest(0, date_part('epoch', c.finished_at - c.started_at)),
           greatest(0, c.input_tokens - coalesce(b.input_tokens, 0)),
           greatest(0, c.output_tokens - coalesce(b.output_tokens, 0)),
           greatest(0, c.cost_usd - coalesce(b.cost_usd, 0)),
           (c.kind = 'ask' AND c.cost_usd IS NULL)::int
    FROM ekiden.calls c
    CROSS JOIN LATERAL (SELECT flow_id, phase, step FROM ekiden.api_tasks
                        WHERE id = c.task_id LIMIT 1) t
    LEFT JOIN LATERAL (SELECT input_tokens, output_tokens, cost_usd FROM ekiden.calls
                       WHERE task_id = c.task_id AND attempt = c.attempt AND number = c.number
                         AND answer IS NULL AND c.answer IS NOT NULL LIMIT 1) b ON true
    WHERE c.finished_at >= $1::timestamptz AND c.finished_at < $2::timestamptz
    UNION ALL
    SELECT 'token', t.flow_id, t.phase, t.step,
           left(c.provider || ':' || c.model, 200), '', date_bin('1 min', c.finished_at, 'epoch'),
           greatest(0, date_part('epoch', c.first_token)), 0, 0, 0, 0
    FROM ekiden.calls c
    CROSS JOIN LATERAL (SELECT flow_id, phase, step FROM ekiden.api_tasks
                        WHERE id = c.task_id LIMIT 1) t
    WHERE c.finished_at >= $1::timestamptz AND c.finished_at < $2::timestamptz
      AND c.first_token IS NOT NULL
    UNION ALL
    SELECT 'human', s.flow_id, r.phase, '', '', r.verb, date_bin('1 min', r.created_at, 'epoch'),
           greatest(0, date_part('epoch', r.waited)), 0, 0, 0, 0
    FROM ekiden.reviews r
    CROSS JOIN LATERAL (SELECT flow_id FROM ekiden.sessions WHERE id = r.session_id LIMIT 1) s
    WHERE r.created_at >= $1::timestamptz AND r.created_at < $2::timestamptz
      AND r.waited IS NOT NULL
), together AS (
    SELECT minute, flow_id, phase, step, outcome, error,
           greatest(0, ceil(ln(greatest(run_s * 1000, 1)) / $3::float8))::smallint AS run,
           greatest(0, ceil(ln(greatest(wait_s * 1000, 1)) / $3::float8))::smallint AS wait,
           CASE WHEN outcome = 'COMPLETED' AND NOT fans_out
                THEN greatest(0, ceil(ln(greatest(wall_s * 1000, 1)) / $3::float8))::smallint
                END AS wall,
           count(*) AS n, sum(run_s) AS run_s, sum(wait_s) AS wait_s, sum(wall_s) AS wall_s
    FROM ended GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
), sums AS (
    SELECT t.minute, m.measure, t.flow_id, t.phase, t.step, '' AS source, m.outcome, m.error,
           m.bucket, sum(t.n) AS n, sum(m.seconds) AS seconds, 0::bigint AS input_tokens,
           0::bigint AS output_tokens, 0::numeric AS cost_usd, 0::bigint AS unpriced
    FROM together t
    CROSS JOIN LATERAL (VALUES ('attempt', t.outcome, t.error, t.run, t.run_s),
                               ('wait', '', '', t.wait, t.wait_s),
                               ('step', '', '', t.wall, t.wall_s))
               AS m(measure, outcome, error, bucket, seconds)
    WHERE m.bucket IS NOT NULL
    GROUP BY t.minute, m.measure, t.flow_id, t.phase, t.step, m.outcome, m.error, m.bucket
    UNION ALL
    SELECT minute, measure, flow_id, phase, step, source, outcome, '',
           greatest(0, ceil(ln(greatest(seconds * 1000, 1)) / $3::float8))::smallint AS bucket,
           count(*), sum(seconds), sum(coalesce(input_tokens, 0)),
           sum(coalesce(output_tokens, 0)), sum(coalesce(cost_usd, 0)), sum(unpriced)
    FROM facts GROUP BY 1, 2, 3, 4, 5, 6, 7, 9
), named AS MATERIALIZED (
    SELECT s.*, f.name AS flow FROM sums s JOIN flow f ON f.id = s.flow_id
), known AS MATERIALIZED (
    SELECT s.id, n.* FROM (SELECT DISTINCT measure, flow, phase, step, source, outcome, error
                           FROM named) n
    LEFT JOIN ekiden.metric_series s USING (measure, flow, phase, step, source, outcome, error)
), made AS (
    INSERT INTO ekiden.metric_series (measure, flow, phase, step, source, outcome, error)
    SELECT measure, flow, phase, step, source, outcome, error FROM known WHERE id IS NULL
    RETURNING id, measure, flow, phase, step, source, outcome, error
), series AS (
    SELECT id, measure, flow, phase, step, source, outcome, error FROM known WHERE id IS NOT NULL
    UNION ALL
    SELECT id, measure, flow, phase, step, source, outcome, error FROM made
)
INSERT INTO ekiden.metric_rollups AS r (width, since, series_id, bucket, n, seconds, input_tokens,
                                        output_tokens, cost_usd, unpriced)
SELECT w.width,
       CASE w.width WHEN 'ever' THEN '-infinity'::timestamptz
                    ELSE date_trunc(w.width, n.minute, 'UTC') END,
       s.id, n.bucket, sum(n.n), sum(n.seconds), sum(n.input_tokens), sum(n.output_tokens),
       sum(n.cost_usd), sum(n.unpriced)
FROM named n JOIN series s USING (measure, flow, phase, step, source, outcome, error)
CROSS JOIN unnest(ARRAY['minute', 'hour', 'day', 'ever']) AS w(width)
GROUP BY 1, 2, 3, 4
ON CONFLICT (width, since, series_id, bucket) DO UPDATE
SET n = r.n + excluded.n, seconds = r.seconds + excluded.seconds,
    input_tokens = r.input_tokens + excluded.input_tokens,
    output_tokens = r.output_tokens + excluded.output_tokens,
    cost_usd = r.cost_usd + excluded.cost_usd, unpriced = r.unpriced + excluded.unpriced;

-- name: add_commits
-- Adds how long commits took that a worker made: buckets $1, attempts $2, seconds $3. In the order of
-- the key, for several may add at once.
INSERT INTO ekiden.metric_rollups AS r (width, since, series_id, bucket, n, seconds, input_tokens,
                                        output_tokens, cost_usd, unpriced)
SELECT w.width,
       CASE w.width WHEN 'ever' THEN '-infinity'::timestamptz
                    ELSE date_trunc(w.width, ekiden.now(), 'UTC') END,
       s.id, b.bucket, b.n, b.seconds, 0, 0, 0, 0
FROM unnest($1::smallint[], $2::bigint[], $3::float8[]) AS b(bucket, n, seconds)
CROSS JOIN unnest(ARRAY['minute', 'hour', 'day', 'ever']) AS w(width)
CROSS JOIN (SELECT id FROM ekiden.metric_series WHERE measure = 'commit') s
ORDER BY 1, 2, 3, 4
ON CONFLICT (width, since, series_id, bucket) DO UPDATE
SET n = r.n + excluded.n, seconds = r.seconds + excluded.seconds;

-- name: end_metric_turn
-- Says that everything before $1 is counted, and lets go of minutes, hours and days older than $2, $3
-- and $4.
WITH gone AS (
    DELETE FROM ekiden.metric_rollups
    WHERE width = 'minute' AND since < ekiden.now() - $2::interval
       OR width = 'hour' AND since < ekiden.now() - $3::interval
       OR width = 'day' AND since < ekiden.now() - $4::interval
)
UPDATE ekiden.metric_watermark SET rolled_to = $1;

-- name: metric_facts
-- The sums of a window, which is made of pieces: width $1, from $2, before $3; of one flow ($4) or all.
-- A piece is summed by itself (LATERAL): joined with the pieces, all sums there are would be read.
SELECT s.measure, s.flow, s.phase, s.step, s.source, s.outcome, s.error, r.bucket, r.n, r.seconds,
       r.input_tokens, r.output_tokens, r.cost_usd, r.unpriced
FROM (
    SELECT m.series_id, m.bucket, sum(m.n)::bigint AS n, sum(m.seconds) AS seconds,
           sum(m.input_tokens)::bigint AS input_tokens,
           sum(m.output_tokens)::bigint AS output_tokens,
           sum(m.cost_usd) AS cost_usd, sum(m.unpriced)::bigint AS unpriced
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS p(width, since, until)
    CROSS JOIN LATERAL (
        SELECT series_id, bucket, sum(n) AS n, sum(seconds) AS seconds,
               sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
               sum(cost_usd) AS cost_usd, sum(unpriced) AS unpriced
        FROM ekiden.metric_rollups
        WHERE width = p.width AND since >= p.since AND since < p.until
        GROUP BY series_id, bucket
    ) m
    GROUP BY m.series_id, m.bucket
) r
JOIN ekiden.metric_series s ON s.id = r.series_id
WHERE $4::text IS NULL OR s.flow = $4;

-- name: queue_now
-- What waits to be claimed: due, for later, and since when the oldest is due, in seconds.
SELECT count(*) FILTER (WHERE available_at <= ekiden.now()) AS due,
       count(*) FILTER (WHERE available_at > ekiden.now()) AS later,
       extract(epoch FROM ekiden.now() - min(available_at)
               FILTER (WHERE available_at <= ekiden.now()))::float8 AS oldest_s
FROM ekiden.api_tasks
WHERE queued AND ($1::text IS NULL OR flow_id IN (SELECT id FROM ekiden.flows WHERE name = $1));

-- name: open_sessions_now
-- Sessions that have not ended and are not put away, by status.
SELECT status, count(*) AS n FROM ekiden.sessions
WHERE status IN ('RUNNING', 'PAUSED', 'FAILED') AND archived_at IS NULL
  AND ($1::text IS NULL OR flow_id IN (SELECT id FROM ekiden.flows WHERE name = $1))
GROUP BY status
UNION ALL
SELECT 'AWAITING_REVIEW', count(*) FROM ekiden.sessions
WHERE waiting_since IS NOT NULL AND status = 'AWAITING_REVIEW'
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

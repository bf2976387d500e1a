-- The life of a task. Lock order: sessions by id, then their tasks.

-- name: claim_tasks
-- Claims up to $3 due tasks of the flows this worker knows ($2), oldest first. With $4, only that
-- session's. Tasks another worker is claiming are passed over, not waited for. A worker that was
-- given up gets none: who looked for what it held has looked already.
WITH due AS MATERIALIZED (
    SELECT id FROM ekiden.api_tasks
    WHERE queued AND available_at <= ekiden.now() AND flow_id = ANY ($2::int[])
      AND ($4::uuid IS NULL OR session_id = $4)
      AND NOT EXISTS (SELECT FROM ekiden.workers WHERE id = $1 AND state = 'LOST')
    ORDER BY available_at, id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE ekiden.api_tasks t
SET status = 'RUNNING', queued = false, attempt = attempt + 1, worker_id = $1,
    started_at = ekiden.now()
WHERE t.id = ANY (ARRAY(SELECT id FROM due)) AND t.queued
RETURNING t.id, t.session_id::text, t.flow_id, t.phase, t.step, t.item, t.generation, t.attempt,
          t.budget_from, t.request::text, t.delivered::text;

-- name: next_due
-- When the nearest task that is queued for later becomes due, as an interval from now; null if
-- there is none.
SELECT available_at - ekiden.now() FROM ekiden.api_tasks
WHERE queued AND flow_id = ANY ($1::int[]) AND ($2::uuid IS NULL OR session_id = $2)
ORDER BY available_at, id LIMIT 1;

-- name: load_sessions
-- What a worker must know to run tasks of these sessions: input, options, the approved outputs of
-- the phases before (and of those kept after going back), this generation's plan and results so far
-- or those it goes on from, and what a person wants to be different.
SELECT s.id::text AS session_id, s.flow_id, s.phase, s.generation, s.input::text,
       s.auto_steps, s.auto_phases, s.max_retries, s.retry_delay, s.timeout,
       (SELECT json_object_agg(o.phase, o.output::text)::text
        FROM (SELECT DISTINCT ON (r.phase) r.phase, coalesce(r.output, t.result) AS output
              FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
              WHERE r.session_id = s.id AND (r.phase < s.phase OR r.phase = ANY (s.kept))
                AND r.approved_at IS NOT NULL
              ORDER BY r.phase, r.generation DESC, r.number DESC) AS o) AS outputs,
       (SELECT t.result::text FROM ekiden.api_tasks t
        WHERE t.session_id = s.id AND t.phase = s.phase AND t.step = 'THINK'
          AND t.generation = coalesce(p.think_from, s.generation)) AS plan,
       ARRAY(SELECT t.result::text FROM ekiden.api_tasks t
             WHERE t.session_id = s.id AND t.phase = s.phase AND t.step = 'EXECUTE'
               AND t.generation = coalesce(p.execute_from, s.generation) AND t.result IS NOT NULL
             ORDER BY t.item) AS found,
       s.kept, s.gates::text, s.models::text, p.note, p.model, p.variables::text,
       (SELECT coalesce(r.output, t.result)::text
        FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
        WHERE r.id = p.previous) AS previous
FROM ekiden.sessions s
JOIN ekiden.phase_runs p
    ON p.session_id = s.id AND p.phase = s.phase AND p.generation = s.generation
WHERE s.id = ANY ($1::uuid[]);

-- name: complete_tasks
-- The hand-off. Stores results, fences each on (RUNNING, attempt), and where that closes the step
-- does what continue-async does: inserts the next step's tasks, already claimed by this worker as
-- far as it has room, or opens the gate, or ends the session. One statement, one commit, any
-- number of sessions.
--
-- A completion is one position of $2 to $6: task, attempt, session, result, and at which position of
-- $7 to $15 stands what follows it, which many of a batch share. The children of those that fan out
-- are rows ($16 position, $17 item, $18 request); drafts of those that finish are rows ($19 to $23),
-- and so is what a gate's check complained of ($24 position, $25 complaint).
--
-- Carried from part to part is only what finds and fences rows; the rest is looked up by position
-- where it is written. PostgreSQL copies what is carried at each part, twice where it locks or
-- updates.
--
-- The chain below is linear on purpose: each part carries on what the next one needs. Joining a
-- part back to an earlier one makes the planner, which expects one row, compare all with all.
-- Every node costs a lone hop a few microseconds, so there are as few as will do.
-- 'RUNNING' is the outcome of a CASE for the same reason: with a literal, statistics taken while
-- nothing ran turn the fence into a scan.
WITH done AS (
    SELECT d.*, (SELECT ekiden.now()) AS now
    FROM unnest($2::bigint[], $4::uuid[]) WITH ORDINALITY AS d(task_id, session_id, ord)
), locked AS MATERIALIZED (
    SELECT d.task_id, d.ord, d.now, s.status AS session_status, s.open_tasks,
           s.failed_items > s.tolerated_items AS stops
    FROM done d JOIN ekiden.sessions s ON s.id = d.session_id
    WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED')
    ORDER BY s.id FOR UPDATE OF s
), fenced AS (
    UPDATE ekiden.api_tasks t
    SET status = 'COMPLETED', result = ($5::text[])[d.ord]::json,
        reads = ($15::text[])[($6::int[])[d.ord]]::smallint[], error = NULL, completed_at = d.now
    FROM locked d
    WHERE t.id = d.task_id AND t.attempt = ($3::int[])[d.ord]
      AND t.status = CASE WHEN d.ord > 0 THEN 'RUNNING' END
    RETURNING t.id, t.session_id, t.phase, t.step, t.generation, t.attempt, t.worker_id,
              t.started_at, d.session_status, d.open_tasks, d.stops, d.ord, d.now
), counted AS (
    -- One row a session. What follows is the same for siblings; how much room there is says the last.
    -- That one closes the step, or stops the session when too many of them have failed.
    SELECT session_id, max(open_tasks) - count(*) AS still_open, max(ord) AS ord,
           max(open_tasks) = count(*) AND NOT bool_or(stops) AS closes,
           max(open_tasks) = count(*) AND bool_or(stops) AS stopped,
           max(id) AS task_id, max(phase) AS phase, max(generation) AS generation,
           max(session_status) AS session_status, max(now) AS now,
           ($6::int[])[max(ord)] AS follows,
           ($7::text[])[($6::int[])[max(ord)]] AS event,
           ($8::smallint[])[($6::int[])[max(ord)]] AS next_phase,
           ($10::boolean[])[($6::int[])[max(ord)]] AS new_phase
    FROM fenced GROUP BY session_id
), moved AS (
    UPDATE ekiden.sessions s
    SET open_tasks = CASE WHEN c.closes THEN ($13::int[])[c.follows] ELSE c.still_open END,
        phase = CASE WHEN c.closes THEN c.next_phase ELSE s.phase END,
        step = CASE WHEN c.closes THEN ($9::text[])[c.follows] ELSE s.step END,
        generation = CASE WHEN c.closes AND c.new_phase
                          THEN (SELECT coalesce(max(p.generation), 0) + 1 FROM ekiden.phase_runs p
                                WHERE p.session_id = s.id AND p.phase = c.next_phase)
                          ELSE s.generation END,
        status = CASE WHEN c.stopped THEN 'PAUSED'
                      WHEN NOT c.closes THEN s.status
                      WHEN c.event = 'open_gate' THEN 'AWAITING_REVIEW'
                      WHEN c.event = 'finish' THEN 'COMPLETED'
                      ELSE s.status END,
        failed_items = CASE WHEN c.closes THEN 0 ELSE s.failed_items END,
        stop = CASE WHEN c.stopped THEN json_build_object('kind', 'items', 'phase', c.phase,
                                                          'step', s.step, 'failed', s.failed_items)
                    ELSE s.stop END,
        waiting_since = CASE WHEN c.stopped OR c.closes AND c.event = 'open_gate' THEN c.now
                             ELSE s.waiting_since END,
        completed_at = CASE WHEN c.closes AND c.event = 'finish' THEN c.now END,
        updated_at = c.now
    FROM counted c WHERE s.id = c.session_id
    RETURNING s.id AS session_id, s.flow_id, c.task_id, c.phase AS closed_phase,
              c.generation AS closed_generation, ($12::boolean[])[c.follows] AS closes_phase,
              c.new_phase, c.event, c.ord, ($14::int[])[c.follows] AS room,
              ($13::int[])[c.follows] AS next_count, c.now, s.phase, s.step, s.generation,
              c.closes, c.stopped,
              ($11::boolean[])[c.follows] OR c.session_status = 'PAUSED' AS held
), next AS MATERIALIZED (
    SELECT nextval('ekiden.api_tasks_id_seq') AS id, coalesce(f.item, 0) AS item, f.request,
           m.session_id, m.flow_id, m.phase, m.step, m.generation, m.held, m.ord, m.now,
           NOT m.held AND coalesce(f.item, 0) < m.room AS mine
    FROM moved m LEFT JOIN unnest($16::bigint[], $17::int[], $18::text[]) AS f(ord, item, request)
         ON f.ord = m.ord
    WHERE m.closes AND m.next_count > 0
), inserted AS (
    INSERT INTO ekiden.api_tasks (id, session_id, flow_id, phase, step, item, generation, status,
                                  queued, awaiting, attempt, worker_id, request, available_at,
                                  created_at, started_at)
    SELECT n.id, n.session_id, n.flow_id, n.phase, n.step, n.item, n.generation,
           CASE WHEN n.mine THEN 'RUNNING' ELSE 'QUEUED' END,
           NOT n.mine AND NOT n.held, n.held, n.mine::int, CASE WHEN n.mine THEN $1::bigint END,
           n.request::json, n.now, n.now, CASE WHEN n.mine THEN n.now END
    FROM next n
), runs AS (
    INSERT INTO ekiden.phase_runs (session_id, phase, generation, started_at)
    SELECT m.session_id, m.phase, m.generation, m.now FROM moved m WHERE m.closes AND m.new_phase
), outputs AS (
    INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, task_id,
                                  created_at, approved_at, approved_by, complaint)
    SELECT m.session_id, m.closed_phase, m.closed_generation, 1, 'model', m.task_id, m.now,
           CASE WHEN m.event <> 'open_gate' THEN m.now END,
           CASE WHEN m.event <> 'open_gate' THEN 'flow' END,
           (SELECT k.complaint FROM unnest($24::bigint[], $25::text[]) AS k(ord, complaint)
            WHERE k.ord = m.ord)
    FROM moved m WHERE m.closes AND m.closes_phase
), ended AS (
    INSERT INTO ekiden.drafts (session_id, generation, number, title, body, sources, created_at)
    SELECT m.session_id, m.closed_generation, d.number, d.title, d.body::json, d.sources::json, m.now
    FROM moved m
    JOIN unnest($19::bigint[], $20::int[], $21::text[], $22::text[], $23::text[])
         AS d(ord, number, title, body, sources) ON d.ord = m.ord
    WHERE m.closes AND m.event = 'finish'
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
    SELECT f.id, f.attempt, f.worker_id, 'COMPLETED', f.started_at, f.now FROM fenced f
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, created_at)
    SELECT f.session_id, 'task_completed', f.phase, f.step, f.id, f.now FROM fenced f
    UNION ALL
    SELECT m.session_id,
           CASE WHEN m.stopped THEN 'items_failed'
                WHEN m.event = 'finish' THEN 'session_completed' ELSE 'gate_opened' END,
           m.closed_phase, NULL, NULL, m.now
    FROM moved m WHERE m.stopped OR m.closes AND m.event <> 'advance'
)
SELECT ARRAY(SELECT ord FROM fenced) AS accepted, n.*
FROM (SELECT array_agg(ord) FILTER (WHERE mine) AS next_of,
             array_agg(id) FILTER (WHERE mine) AS next_ids,
             array_agg(item) FILTER (WHERE mine) AS next_items,
             array_agg(generation) FILTER (WHERE mine) AS next_generations,
             coalesce(bool_or(NOT mine AND NOT held), false) AS left_queued
      FROM next) AS n;

-- name: tasks_running_on
-- The tasks a worker holds, with their attempt tokens: to settle a commit or a claim whose answer
-- was lost. $2: the sessions to look at, or null for all.
SELECT t.id, t.session_id::text, t.flow_id, t.phase, t.step, t.item, t.generation, t.attempt,
       t.budget_from, t.request::text, t.delivered::text
FROM ekiden.sessions s JOIN ekiden.api_tasks t
     ON t.session_id = s.id AND t.status = 'RUNNING' AND t.worker_id = $1
WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED')
  AND ($2::uuid[] IS NULL OR s.id = ANY ($2));

-- name: completed_attempts
-- Which of these (task, attempt) pairs stand COMPLETED: the judge of an unknown commit.
SELECT t.id FROM unnest($1::bigint[], $2::int[]) AS asked(id, attempt)
JOIN ekiden.api_tasks t ON t.id = asked.id AND t.attempt = asked.attempt
WHERE t.status = 'COMPLETED' AND t.worker_id = $3;

-- name: deliver_result
-- Takes a result from outside for a running task ($1, token $2): the task is queued again at once,
-- and the worker that claims it checks the result against the step's schema and completes it. Held
-- if the session was paused meanwhile.
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status FROM ekiden.sessions s WHERE s.id = $4 FOR UPDATE
), taken AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = l.status <> 'PAUSED', awaiting = l.status = 'PAUSED',
        delivered = $3::json, available_at = ekiden.now(), budget_from = t.budget_from + 1
    FROM locked l
    WHERE t.id = $1 AND t.attempt = $2 AND t.status = 'RUNNING' AND t.session_id = l.id
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at,
                                 retry_at)
    SELECT id, attempt, worker_id, 'RELEASED', started_at, ekiden.now(), ekiden.now() FROM taken
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id)
    SELECT session_id, 'result_delivered', phase, step, id FROM taken
)
-- What a provider makes in the background is stopped, as where a session is cancelled.
SELECT id, (SELECT pg_notify('session_cancelled', taken.session_id::text) FROM ekiden.started_calls s
            WHERE s.task_id = taken.id AND s.withdrawn_at IS NULL AND s.answer_id LIKE 'resp\_%'
            LIMIT 1) AS told
FROM taken;

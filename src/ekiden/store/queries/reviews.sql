-- What people decide. Each decision is one transaction: lock_session, what there is to know, and one
-- statement that repeats the guard and leaves a row in reviews. Lock order: sessions by id, then
-- their tasks.

-- name: review_by_key
-- The review an idempotency key stands for, if it was taken already, and how its session is now.
SELECT r.session_id::text, r.verb, r.asked, r.phase, r.revision_id, s.status
FROM ekiden.reviews r JOIN ekiden.sessions s ON s.id = r.session_id
WHERE r.idempotency_key = $1;

-- name: keep_asked
-- Keeps with the review of an idempotency key what it came with.
UPDATE ekiden.reviews SET asked = $2 WHERE idempotency_key = $1;

-- name: look_at_gate
-- What is to be known for any decision over a session; the revision is the one that stands.
SELECT s.status, s.phase, s.step, s.generation, s.created_by, s.kept,
       s.stop ->> 'kind' AS stop, jsonb_array_length(f.phases) AS phases, f.output_schemas::text,
       (coalesce(f.phases -> (s.phase - 1) -> 'gate', '{}')
        || coalesce(s.gates -> s.phase::text, '{}'))::text AS policy,
       r.id AS revision,
       ARRAY(SELECT DISTINCT v.actor FROM ekiden.reviews v
             WHERE v.revision_id = r.id AND v.verb = 'approve') AS approved_by
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
LEFT JOIN LATERAL (
    SELECT id FROM ekiden.revisions
    WHERE session_id = s.id AND phase = s.phase AND generation = s.generation
    ORDER BY number DESC LIMIT 1
) r ON true
WHERE s.id = $1;

-- name: look_at_runs
-- The newest run of each phase that was begun: what it has of THINK and EXECUTE, its own or kept, its
-- newest revision, and which earlier outputs it has read (null where that is not known: a result from
-- outside is in it, or a fork shares it).
SELECT p.phase, p.generation, p.think_from, p.execute_from, t.planned, t.items, t.executed,
       r.id AS revision, r.approved_at IS NOT NULL AS approved,
       CASE WHEN t.tasks > 0 AND NOT t.delivered THEN
           ARRAY(SELECT DISTINCT e FROM ekiden.api_tasks a, unnest(a.reads) AS e
                 WHERE a.session_id = $1 AND a.phase = p.phase AND a.status = 'COMPLETED'
                   AND a.generation IN (p.generation, p.think_from, p.execute_from)) END AS reads
FROM (SELECT DISTINCT ON (n.phase) n.phase, n.generation,
             coalesce(n.think_from, n.generation) AS think_from,
             coalesce(n.execute_from, n.generation) AS execute_from
      FROM ekiden.phase_runs n WHERE n.session_id = $1
      ORDER BY n.phase, n.generation DESC) p
CROSS JOIN LATERAL (
    SELECT coalesce(bool_or(a.step = 'THINK' AND a.status = 'COMPLETED'
                            AND a.generation = p.think_from), false) AS planned,
           count(*) FILTER (WHERE a.step = 'EXECUTE' AND a.generation = p.execute_from) AS items,
           coalesce(bool_and(a.status = 'COMPLETED' OR a.tolerated)
               FILTER (WHERE a.step = 'EXECUTE' AND a.generation = p.execute_from), true) AS executed,
           bool_or(a.delivered IS NOT NULL) AS delivered, count(*) AS tasks
    FROM ekiden.api_tasks a WHERE a.session_id = $1 AND a.phase = p.phase
) t
LEFT JOIN LATERAL (
    SELECT id, approved_at FROM ekiden.revisions
    WHERE session_id = $1 AND phase = p.phase AND generation = p.generation
    ORDER BY approved_at IS NULL, number DESC LIMIT 1
) r ON true
ORDER BY p.phase;

-- name: approve_gate
-- Passes the gate of a session: revision $2 is approved and phase $6 begins, or the session is
-- complete when $6 is null, for all that follows still holds.
WITH moved AS (
    UPDATE ekiden.sessions s
    SET status = CASE WHEN $6::smallint IS NULL THEN 'COMPLETED' ELSE 'RUNNING' END,
        phase = coalesce($6, s.phase), step = CASE WHEN $6 IS NULL THEN s.step ELSE 'THINK' END,
        open_tasks = CASE WHEN $6 IS NULL THEN 0 ELSE 1 END, error = NULL,
        generation = CASE WHEN $6 IS NULL THEN s.generation ELSE
            (SELECT coalesce(max(p.generation), 0) + 1 FROM ekiden.phase_runs p
             WHERE p.session_id = s.id AND p.phase = $6) END,
        completed_at = CASE WHEN $6 IS NULL THEN ekiden.now() END,
        waited = s.waited + (ekiden.now() - s.waiting_since), waiting_since = NULL,
        updated_at = ekiden.now()
    FROM ekiden.revisions r
    JOIN ekiden.sessions l ON l.id = r.session_id AND l.phase = r.phase AND l.generation = r.generation
    WHERE s.id = $1 AND s.status = 'AWAITING_REVIEW' AND r.id = $2 AND r.session_id = s.id
      AND NOT EXISTS (SELECT FROM ekiden.revisions newer
                      WHERE newer.session_id = r.session_id AND newer.phase = r.phase
                        AND newer.generation = r.generation AND newer.number > r.number)
    RETURNING s.id, s.flow_id, s.phase, s.generation, r.phase AS approved_phase,
              r.generation AS approved_generation, NOT s.auto_steps AS held,
              ekiden.now() - l.waiting_since AS waited
), approved AS (
    UPDATE ekiden.revisions r SET approved_at = ekiden.now(), approved_by = $3 FROM moved m
    WHERE r.id = $2 AND r.approved_at IS NULL
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, revision_id, actor, comment,
                                idempotency_key, waited)
    SELECT id, approved_phase, approved_generation, 'approve', $2, $3, $4, $5, waited FROM moved
), run AS (
    INSERT INTO ekiden.phase_runs (session_id, phase, generation)
    SELECT id, phase, generation FROM moved WHERE $6 IS NOT NULL
), task AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued, awaiting)
    SELECT id, flow_id, phase, 'THINK', generation, NOT held, held FROM moved WHERE $6 IS NOT NULL
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, data)
    SELECT id, 'gate_approved', approved_phase, json_build_object('actor', $3::text) FROM moved
    UNION ALL
    SELECT id, 'session_completed', phase, NULL FROM moved WHERE $6 IS NULL
)
SELECT status, (SELECT count(*) FROM moved) AS changed FROM ekiden.sessions WHERE id = $1;

-- name: count_approval
-- Notes an approval that counts, where others are still needed.
WITH reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, revision_id, actor, comment,
                                idempotency_key, waited, passes)
    SELECT id, phase, generation, 'approve', $2, $3, $4, $5, ekiden.now() - waiting_since, false
    FROM ekiden.sessions
    WHERE id = $1 AND status = 'AWAITING_REVIEW'
    RETURNING session_id, phase
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, data)
    SELECT session_id, 'gate_seconded', phase, json_build_object('actor', $3::text, 'missing', $6::int)
    FROM reviewed
)
SELECT count(*) AS changed FROM reviewed;

-- name: edit_output
-- Adds a person's revision to the newest run of phase $2 and lets its gate wait for approval. What
-- was open is superseded: nothing of it counts any more. $7: later phases that still hold.
WITH old AS MATERIALIZED (
    SELECT s.id, s.status, s.phase, s.waiting_since, f.phases FROM ekiden.sessions s
    JOIN ekiden.flows f ON f.id = s.flow_id
    WHERE s.id = $1 AND s.status IN ('AWAITING_REVIEW', 'PAUSED', 'FAILED', 'COMPLETED')
), live AS MATERIALIZED (
    SELECT t.id, t.status, t.attempt, t.worker_id, t.started_at FROM ekiden.api_tasks t, old e
    WHERE t.session_id = e.id AND t.status IN ('QUEUED', 'RUNNING', 'FAILED') AND NOT t.tolerated
    FOR UPDATE OF t
), dropped AS (
    UPDATE ekiden.api_tasks t SET status = 'CANCELLED', queued = false, awaiting = false
    FROM live l WHERE t.id = l.id
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
    SELECT id, attempt, worker_id, 'CANCELLED', started_at, ekiden.now() FROM live
    WHERE status = 'RUNNING'
), made AS (
    INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, output, comment)
    SELECT e.id, r.phase, r.generation, r.number + 1, $4, $3::json, $5
    FROM old e, ekiden.revisions r
    WHERE r.session_id = e.id AND r.phase = $2
    ORDER BY r.generation DESC, r.number DESC LIMIT 1
    RETURNING id, session_id, phase, generation
), moved AS (
    UPDATE ekiden.sessions s
    SET status = 'AWAITING_REVIEW', phase = m.phase, generation = m.generation,
        step = e.phases -> (m.phase - 1) -> 'steps' ->> -1, open_tasks = 0, error = NULL,
        stop = NULL, failed_items = 0, completed_at = NULL, archived_at = NULL, kept = $7::smallint[],
        -- Waiting goes on where it did already.
        waiting_since = coalesce(s.waiting_since, ekiden.now()), updated_at = ekiden.now()
    FROM made m, old e WHERE s.id = m.session_id
    RETURNING s.id, m.phase, m.generation, m.id AS revision_id,
              e.status <> 'AWAITING_REVIEW' OR e.phase <> m.phase AS opened,
              ekiden.now() - e.waiting_since AS waited
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, revision_id, actor, comment,
                                idempotency_key, waited)
    SELECT id, phase, generation, 'edit', revision_id, $4, $5, $6, waited FROM moved
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, data)
    SELECT id, 'output_edited', phase, json_build_object('actor', $4::text) FROM moved
    UNION ALL
    SELECT id, 'gate_opened', phase, NULL FROM moved WHERE opened
)
SELECT m.revision_id,
       (SELECT count(pg_notify('session_cancelled', $1::text)) FROM live WHERE attempt > 0) AS told
FROM moved m;

-- name: begin_generation
-- Runs a phase ($2) again from step $3, for verb $4 (reject or rerun): a new generation, in which
-- nothing of the old one is overwritten. It goes on from the plan of generation $5 and the results of
-- $6, where those are kept; $12: later phases that still hold.
WITH old AS MATERIALIZED (
    SELECT s.id, s.flow_id, s.auto_steps, s.waiting_since, s.status FROM ekiden.sessions s
    WHERE s.id = $1 AND s.status IN ('AWAITING_REVIEW', 'PAUSED', 'FAILED', 'COMPLETED')
      AND ($4::text = 'rerun' OR s.status = 'AWAITING_REVIEW')
), live AS MATERIALIZED (
    SELECT t.id, t.status, t.attempt, t.worker_id, t.started_at FROM ekiden.api_tasks t, old e
    WHERE t.session_id = e.id AND t.status IN ('QUEUED', 'RUNNING', 'FAILED') AND NOT t.tolerated
    FOR UPDATE OF t
), dropped AS (
    UPDATE ekiden.api_tasks t SET status = 'CANCELLED', queued = false, awaiting = false
    FROM live l WHERE t.id = l.id
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, started_at, finished_at)
    SELECT id, attempt, worker_id, 'CANCELLED', started_at, ekiden.now() FROM live
    WHERE status = 'RUNNING'
), items AS (
    SELECT t.item, t.request FROM ekiden.api_tasks t
    WHERE $3::text = 'EXECUTE' AND t.session_id = $1 AND t.phase = $2 AND t.step = 'EXECUTE'
      AND t.generation = $6
    UNION ALL
    SELECT 0, NULL WHERE $3 <> 'EXECUTE'
), run AS (
    INSERT INTO ekiden.phase_runs (session_id, phase, generation, think_from, execute_from, note,
                                   previous, model, variables)
    SELECT e.id, $2, (SELECT max(p.generation) + 1 FROM ekiden.phase_runs p
                      WHERE p.session_id = e.id AND p.phase = $2),
           CASE WHEN $3 <> 'THINK' THEN $5::int END, CASE WHEN $3 = 'INTEGRATE' THEN $6::int END,
           $9, $7, $10, $11::jsonb
    FROM old e
    RETURNING session_id, generation
), moved AS (
    UPDATE ekiden.sessions s
    SET status = 'RUNNING', phase = $2, step = $3, generation = r.generation,
        open_tasks = (SELECT count(*) FROM items), error = NULL, stop = NULL, failed_items = 0,
        completed_at = NULL, archived_at = NULL, kept = $12::smallint[],
        waited = s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0'),
        waiting_since = NULL, updated_at = ekiden.now()
    FROM run r JOIN old e ON e.id = r.session_id WHERE s.id = e.id
    RETURNING s.id, s.flow_id, s.generation, NOT s.auto_steps AS held,
              ekiden.now() - e.waiting_since AS waited
), tasks AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, item, generation, request,
                                  queued, awaiting)
    SELECT m.id, m.flow_id, $2, $3, i.item, m.generation, i.request, NOT m.held, m.held
    FROM moved m, items i
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, step, verb, revision_id, actor,
                                comment, idempotency_key, waited)
    SELECT id, $2, generation, $3, $4, $7, $8, $9, $13, waited FROM moved
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, data)
    SELECT id, CASE $4 WHEN 'reject' THEN 'gate_rejected' ELSE 'phase_rerun' END, $2, $3,
           json_build_object('actor', $8::text, 'generation', generation)
    FROM moved
)
SELECT m.generation,
       (SELECT count(pg_notify('session_cancelled', $1::text)) FROM live WHERE attempt > 0) AS told
FROM moved m;

-- name: accept_items
-- Goes on with the items of a fan-out that succeeded; those that failed are left out.
WITH moved AS (
    UPDATE ekiden.sessions s
    SET status = 'RUNNING', step = 'INTEGRATE', open_tasks = 1, stop = NULL, failed_items = 0,
        waited = s.waited + (ekiden.now() - l.waiting_since), waiting_since = NULL,
        updated_at = ekiden.now()
    FROM ekiden.sessions l
    WHERE s.id = $1 AND l.id = s.id AND s.status = 'PAUSED' AND s.stop ->> 'kind' = 'items'
    RETURNING s.id, s.flow_id, s.phase, s.generation, NOT s.auto_steps AS held,
              ekiden.now() - l.waiting_since AS waited
), task AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued, awaiting)
    SELECT id, flow_id, phase, 'INTEGRATE', generation, NOT held, held FROM moved
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, actor, comment,
                                idempotency_key, waited)
    SELECT id, phase, generation, 'accept', $2, $3, $4, waited FROM moved
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, data)
    SELECT id, 'items_accepted', phase, 'EXECUTE', json_build_object('actor', $2::text) FROM moved
)
SELECT count(*) AS changed FROM moved;

-- name: retry_items
-- Queues the items of a fan-out that failed, and only those, with a fresh budget of tries.
WITH moved AS (
    UPDATE ekiden.sessions s
    SET status = 'RUNNING', stop = NULL, failed_items = 0,
        open_tasks = (SELECT count(*) FROM ekiden.api_tasks t
                      WHERE t.session_id = s.id AND t.phase = s.phase AND t.step = s.step
                        AND t.generation = s.generation AND t.tolerated),
        waited = s.waited + (ekiden.now() - l.waiting_since), waiting_since = NULL,
        updated_at = ekiden.now()
    FROM ekiden.sessions l
    WHERE s.id = $1 AND l.id = s.id AND s.status = 'PAUSED' AND s.stop ->> 'kind' = 'items'
    RETURNING s.id, s.phase, s.step, s.generation, ekiden.now() - l.waiting_since AS waited
), again AS (
    UPDATE ekiden.api_tasks t
    SET status = 'QUEUED', queued = true, awaiting = false, tolerated = false, error = NULL,
        available_at = ekiden.now(), delivered = NULL, budget_from = t.attempt
    FROM moved m
    WHERE t.session_id = m.id AND t.phase = m.phase AND t.step = m.step
      AND t.generation = m.generation AND t.tolerated
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, actor, comment,
                                idempotency_key, waited)
    SELECT id, phase, generation, 'retry', $2, $3, $4, waited FROM moved
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, data)
    SELECT id, 'items_retried', phase, step, json_build_object('actor', $2::text) FROM moved
)
SELECT count(*) AS changed FROM moved;

-- name: set_budget
-- Sets the budget of a session ($2 = 0) or of one of its phases. A limit that is null is none, or with
-- $8 stays what it was; with neither limit there is no budget any more. A session that a budget had
-- stopped goes on.
WITH old AS MATERIALIZED (
    SELECT s.id, s.phase, s.generation, s.waiting_since,
           s.status = 'PAUSED' AND s.stop ->> 'kind' = 'budget' AS stopped
    FROM ekiden.sessions s WHERE s.id = $1 AND s.status NOT IN ('COMPLETED', 'CANCELLED')
), limits AS MATERIALIZED (
    -- Nobody else sets them: the session's lock is ours.
    SELECT e.id, coalesce($3::numeric, CASE WHEN $8::boolean THEN b.max_cost_usd END) AS max_cost_usd,
           coalesce($4::bigint, CASE WHEN $8 THEN b.max_tokens END) AS max_tokens
    FROM old e LEFT JOIN ekiden.budgets b ON b.session_id = e.id AND b.phase = $2
), removed AS (
    DELETE FROM ekiden.budgets b USING limits l
    WHERE b.session_id = l.id AND b.phase = $2 AND l.max_cost_usd IS NULL AND l.max_tokens IS NULL
), kept AS (
    INSERT INTO ekiden.budgets (session_id, phase, max_cost_usd, max_tokens)
    SELECT l.id, $2, l.max_cost_usd, l.max_tokens FROM limits l
    WHERE l.max_cost_usd IS NOT NULL OR l.max_tokens IS NOT NULL
    ON CONFLICT (session_id, phase) DO UPDATE
    SET max_cost_usd = excluded.max_cost_usd, max_tokens = excluded.max_tokens
), moved AS (
    UPDATE ekiden.sessions s
    SET status = 'RUNNING', stop = NULL, updated_at = ekiden.now(),
        waited = s.waited + (ekiden.now() - e.waiting_since), waiting_since = NULL
    FROM old e WHERE s.id = e.id AND e.stopped
    RETURNING s.id
), again AS (
    UPDATE ekiden.api_tasks t SET queued = true, awaiting = false, available_at = ekiden.now()
    FROM moved m WHERE t.session_id = m.id AND t.awaiting
), reviewed AS (
    INSERT INTO ekiden.reviews (session_id, phase, generation, verb, actor, comment,
                                idempotency_key, waited)
    SELECT id, phase, generation, 'budget', $5, $6, $7, ekiden.now() - waiting_since FROM old
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, data)
    SELECT id, 'budget_set', phase,
           json_build_object('actor', $5::text, 'ofPhase', $2::int,
                             'maxCostUsd', max_cost_usd, 'maxTokens', max_tokens)
    FROM old JOIN limits USING (id)
)
SELECT count(*) AS changed FROM old;

-- name: waiting_sessions
-- Sessions that wait for a person, longest first, with what they wait for.
SELECT s.id::text, f.name AS flow, s.title, s.status, s.phase, s.step, s.stop::text, s.waiting_since,
       ekiden.now() - s.waiting_since AS age, f.phases -> (s.phase - 1) ->> 'title' AS phase_title
FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
WHERE s.waiting_since IS NOT NULL AND ($1::text IS NULL OR f.name = $1)
ORDER BY s.waiting_since, s.id LIMIT $2;

-- name: waiting_percentiles
-- How many wait, how long they have waited, and how long those took that were decided in 30 days.
SELECT w.waiting, w.age_p50, w.age_p90, d.decided, d.took_p50, d.took_p90
FROM (SELECT count(*) AS waiting,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY ekiden.now() - s.waiting_since) AS age_p50,
             percentile_cont(0.9) WITHIN GROUP (ORDER BY ekiden.now() - s.waiting_since) AS age_p90
      FROM ekiden.sessions s WHERE s.waiting_since IS NOT NULL) w,
     (SELECT count(*) AS decided,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY v.waited) AS took_p50,
             percentile_cont(0.9) WITHIN GROUP (ORDER BY v.waited) AS took_p90
      FROM ekiden.reviews v
      WHERE v.waited IS NOT NULL AND v.created_at > ekiden.now() - interval '30 days') d;

-- name: list_reviews
-- Every decision over a session, oldest first.
SELECT v.id, v.phase, v.generation, v.step, v.verb, v.revision_id, v.actor, v.comment, v.passes,
       v.waited, v.created_at
FROM ekiden.reviews v WHERE v.session_id = $1 ORDER BY v.id;

-- name: get_revision
-- One revision of any session, with its output.
SELECT r.id, r.session_id::text, r.phase, r.generation, r.number, r.author, r.created_at,
       r.approved_at, coalesce(r.output, t.result)::text AS output
FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
WHERE r.id = $1;

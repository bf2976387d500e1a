-- Invariants of tasks and attempts, for ekiden verify. See verify_sessions.sql for the form.

-- name: verify_tasks_follow_the_flow
-- Each task is of a phase and a step that the session's flow has; only a step that fans out has
-- items after the first.
WITH steps AS MATERIALIZED (
    SELECT f.id AS flow_id, p.number::int AS phase, s.step,
           (p.phase ->> 'fansOut')::boolean AND s.step = 'EXECUTE' AS fans_out
    FROM ekiden.flows f,
         jsonb_array_elements(f.phases) WITH ORDINALITY AS p(phase, number),
         jsonb_array_elements_text(p.phase -> 'steps') AS s(step)
), judged AS (
    SELECT t.id, t.flow_id = s.flow_id AND t.item >= 0 AND (t.item = 0 OR d.fans_out)
                 AND d.step IS NOT NULL AS holds
    FROM ekiden.api_tasks t JOIN ekiden.sessions s ON s.id = t.session_id
    LEFT JOIN steps d ON d.flow_id = t.flow_id AND d.phase = t.phase AND d.step = t.step
    WHERE $1::uuid IS NULL OR t.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_one_task_per_item
-- No two tasks stand for the same item. A task is one row and a claim is its state, so nothing is
-- claimed twice at a time.
WITH judged AS (
    SELECT session_id, phase, generation, step, item, count(*) AS tasks FROM ekiden.api_tasks
    WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id, phase, generation, step, item
)
SELECT coalesce(sum(tasks), 0)::bigint AS examined, count(*) FILTER (WHERE tasks > 1) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation, step, item))
           FILTER (WHERE tasks > 1))[1:20] AS ids
FROM judged;

-- name: verify_claims_have_workers
-- A RUNNING task has an attempt number, a start and a worker that registered. That worker may have
-- died: then it is about to be rescued.
WITH judged AS (
    SELECT t.id, t.attempt > 0 AND t.started_at IS NOT NULL AND w.id IS NOT NULL AS holds
    FROM ekiden.sessions s
    JOIN ekiden.api_tasks t ON t.session_id = s.id AND t.status = 'RUNNING'
    LEFT JOIN ekiden.workers w ON w.id = t.worker_id
    WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED') AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_attempts_are_numbered
-- The attempts of a task that ended are 1, 2, … up to its number, or to the one before while it runs.
WITH ended AS (
    SELECT task_id, count(*) AS attempts, count(DISTINCT number) AS numbers,
           min(number) AS first, max(number) AS last
    FROM ekiden.attempts
    WHERE $1::uuid IS NULL OR task_id IN (SELECT id FROM ekiden.api_tasks WHERE session_id = $1)
    GROUP BY task_id
), judged AS (
    SELECT t.id, coalesce(e.attempts, 0) = n.ended AND coalesce(e.numbers, 0) = n.ended
                 AND coalesce(e.first, 1) = 1 AND coalesce(e.last, 0) = n.ended AS holds
    FROM ekiden.api_tasks t
    CROSS JOIN LATERAL (SELECT t.attempt - (t.status = 'RUNNING')::int AS ended) AS n
    LEFT JOIN ended e ON e.task_id = t.id
    WHERE $1::uuid IS NULL OR t.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_tasks_are_completed_once
-- The fence: a COMPLETED task has exactly one COMPLETED attempt, its last one, by its last worker;
-- no other task has any.
WITH completed AS (
    SELECT task_id, count(*) AS attempts, max(number) AS number, max(worker_id) AS worker_id
    FROM ekiden.attempts
    WHERE outcome = 'COMPLETED'
      AND ($1::uuid IS NULL OR task_id IN (SELECT id FROM ekiden.api_tasks WHERE session_id = $1))
    GROUP BY task_id
), judged AS (
    SELECT t.id, CASE t.status
                 WHEN 'COMPLETED' THEN c.attempts = 1 AND c.number = t.attempt
                                       AND c.worker_id = t.worker_id
                 ELSE c.task_id IS NULL END AS holds
    FROM ekiden.api_tasks t LEFT JOIN completed c ON c.task_id = t.id
    WHERE $1::uuid IS NULL OR t.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_completed_tasks_have_results
-- A COMPLETED task has a result and a time of completion; no other task has either.
WITH judged AS (
    SELECT id, (status = 'COMPLETED') = (result IS NOT NULL)
               AND (status = 'COMPLETED') = (completed_at IS NOT NULL) AS holds
    FROM ekiden.api_tasks WHERE $1::uuid IS NULL OR session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_steps_wait_for_the_step_before
-- In each run of a phase: THINK is there, a later step has tasks only when all tasks of the earlier
-- ones are COMPLETED or given up, its own or those it goes on from, no item of a fan-out is missing, and no step is left out (EXECUTE may be, where
-- it fans out: over nothing).
WITH steps AS MATERIALIZED (
    SELECT f.id AS flow_id, p.number::int AS phase,
           p.phase -> 'steps' ? 'EXECUTE' AND NOT (p.phase ->> 'fansOut')::boolean AS must_execute
    FROM ekiden.flows f, jsonb_array_elements(f.phases) WITH ORDINALITY AS p(phase, number)
), runs AS (
    SELECT session_id, phase, generation, max(flow_id) AS flow_id,
           count(*) FILTER (WHERE step = 'THINK') AS thinks,
           count(*) FILTER (WHERE step = 'EXECUTE') AS executes,
           count(*) FILTER (WHERE step = 'INTEGRATE') AS integrates,
           count(*) FILTER (WHERE step = 'THINK' AND status <> 'COMPLETED') AS thinking,
           count(*) FILTER (WHERE step = 'EXECUTE' AND status <> 'COMPLETED'
                            AND NOT tolerated) AS executing,
           coalesce(max(item) FILTER (WHERE step = 'EXECUTE'), -1) AS last_item
    FROM ekiden.api_tasks WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id, phase, generation
), judged AS (
    SELECT r.session_id, r.phase, r.generation,
           (r.thinks > 0 OR p.think_from IS NOT NULL) AND r.last_item < r.executes
           AND (r.executes = 0 OR r.thinking = 0)
           AND (r.integrates = 0 OR r.thinking = 0 AND r.executing = 0
                                    AND (r.executes > 0 OR p.execute_from IS NOT NULL
                                         OR d.must_execute IS NOT TRUE)) AS holds
    FROM runs r
    JOIN ekiden.phase_runs p USING (session_id, phase, generation)
    LEFT JOIN steps d ON d.flow_id = r.flow_id AND d.phase = r.phase
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_phase_runs_match_tasks
-- Every run of a phase has tasks (but those that a fork shares), and every task belongs to a run.
WITH tasks AS (
    SELECT DISTINCT session_id, phase, generation FROM ekiden.api_tasks
    WHERE $1::uuid IS NULL OR session_id = $1
), runs AS (
    SELECT r.session_id, r.phase, r.generation FROM ekiden.phase_runs r
    JOIN ekiden.sessions s ON s.id = r.session_id
    WHERE ($1::uuid IS NULL OR r.session_id = $1)
      AND NOT (r.generation = 1 AND r.phase <= coalesce(s.parent_phase, 0))
), judged AS (
    SELECT session_id, phase, generation,
           t.session_id IS NOT NULL AND r.session_id IS NOT NULL AS holds
    FROM tasks t FULL JOIN runs r USING (session_id, phase, generation)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_transitions_go_forward
-- The steps of a session, in the order in which their tasks were made, only go forward: to a later
-- step of the phase, to the first of the next phase, to a phase of which what was between still
-- held, or to a new generation.
WITH steps AS (
    SELECT session_id, phase, generation, step,
           array_position(ARRAY['THINK', 'EXECUTE', 'INTEGRATE'], step) AS rank,
           min(id) AS first, max(id) AS last
    FROM ekiden.api_tasks WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id, phase, generation, step
), followed AS (
    SELECT *, lag(phase) OVER before AS old_phase, lag(generation) OVER before AS old_generation,
           lag(rank) OVER before AS old_rank, lag(last) OVER before AS old_last
    FROM steps WINDOW before AS (PARTITION BY session_id ORDER BY first)
), judged AS (
    SELECT session_id, phase, generation, step,
           CASE WHEN old_phase IS NULL
                THEN rank = 1 AND phase = 1 + coalesce((SELECT s.parent_phase FROM ekiden.sessions s
                                                        WHERE s.id = followed.session_id), 0)
                WHEN (phase, generation) = (old_phase, old_generation) THEN rank > old_rank
                ELSE (rank = 1 OR generation > 1) AND (phase = old_phase + 1 OR generation > 1)
           END AND (old_last IS NULL OR old_last < first) AS holds
    FROM followed
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation, step))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_steps_complete_in_order
-- No task was completed before the step before its own. A second is allowed: a standby that was
-- promoted may have a clock of its own.
WITH steps AS (
    SELECT session_id, phase, generation, step, min(id) AS first_id,
           min(completed_at) AS first, max(completed_at) AS last
    FROM ekiden.api_tasks WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id, phase, generation, step
), judged AS (
    SELECT session_id, phase, generation, step,
           coalesce(first >= lag(last) OVER before - interval '1 second', true) AS holds
    FROM steps WINDOW before AS (PARTITION BY session_id ORDER BY first_id)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation, step))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- Invariants of outputs and gates, for ekiden verify. See verify_sessions.sql for the form.
--
-- There is a gate after each phase but the last, unless the session passes them by itself
-- (auto_phases): then the output is approved in the hand-off and nobody reviews it.

-- name: verify_outputs_are_results
-- Every INTEGRATE task that is COMPLETED is the first revision of its phase's output, and every
-- revision that a model made points at such a task: no output is made up.
WITH outputs AS (
    SELECT * FROM ekiden.revisions
    WHERE task_id IS NOT NULL AND ($1::uuid IS NULL OR session_id = $1)
), results AS (
    SELECT id, session_id, phase, generation FROM ekiden.api_tasks
    WHERE step = 'INTEGRATE' AND status = 'COMPLETED' AND ($1::uuid IS NULL OR session_id = $1)
), judged AS (
    SELECT coalesce(t.session_id, r.session_id) AS session_id, coalesce(t.phase, r.phase) AS phase,
           coalesce(t.generation, r.generation) AS generation,
           (r.session_id, r.phase, r.generation) = (t.session_id, t.phase, t.generation)
           AND r.number = 1 AND r.author = 'model' AS holds
    FROM results t FULL JOIN outputs r ON r.task_id = t.id
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_gates_are_reviewed_once
-- A revision that passed a gate has exactly one approving review, and no other has any: none that
-- waits, none that the session passed by itself, none of the last phase.
WITH given AS (
    SELECT session_id, phase, revision_id, count(*) AS reviews FROM ekiden.reviews
    WHERE verb = 'approve' AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase, revision_id
), asked AS (
    SELECT r.id, r.session_id, r.phase, (r.approved_at IS NOT NULL AND NOT s.auto_phases
                                         AND r.phase < jsonb_array_length(f.phases))::int AS reviews
    FROM ekiden.revisions r
    JOIN ekiden.sessions s ON s.id = r.session_id JOIN ekiden.flows f ON f.id = s.flow_id
    WHERE $1::uuid IS NULL OR r.session_id = $1
), judged AS (
    SELECT coalesce(a.session_id, g.session_id) AS session_id, coalesce(a.phase, g.phase) AS phase,
           a.reviews = coalesce(g.reviews, 0) AS holds
    FROM asked a FULL JOIN given g
        ON g.revision_id = a.id AND g.session_id = a.session_id AND g.phase = a.phase
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase)) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_gates_are_passed_once
-- The next phase was begun exactly as often as an output of this one was approved (besides its
-- reruns), and of one generation at most one revision was.
WITH approved AS (
    SELECT r.session_id, r.phase, count(*) AS revisions, count(DISTINCT r.generation) AS generations
    FROM ekiden.revisions r
    JOIN ekiden.sessions s ON s.id = r.session_id JOIN ekiden.flows f ON f.id = s.flow_id
    WHERE r.approved_at IS NOT NULL AND r.phase < jsonb_array_length(f.phases)
      AND ($1::uuid IS NULL OR r.session_id = $1)
    GROUP BY r.session_id, r.phase
), reruns AS (
    SELECT session_id, phase, count(*) AS reruns FROM ekiden.reviews
    WHERE verb = 'rerun' AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase
), begun AS (
    SELECT r.session_id, r.phase - 1 AS phase, count(*) - coalesce(max(x.reruns), 0) AS runs
    FROM ekiden.phase_runs r LEFT JOIN reruns x USING (session_id, phase)
    WHERE r.phase > 1 AND ($1::uuid IS NULL OR r.session_id = $1)
    GROUP BY r.session_id, r.phase
), judged AS (
    SELECT session_id, phase, a.revisions = a.generations AND b.runs = a.generations AS holds
    FROM approved a FULL JOIN begun b USING (session_id, phase)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase)) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_phases_begin_after_approval
-- No task of a phase was made before an output of the phase before was approved.
WITH begun AS (
    SELECT session_id, phase, generation, min(created_at) AS at FROM ekiden.api_tasks
    WHERE phase > 1 AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase, generation
), approved AS (
    SELECT session_id, phase, min(approved_at) AS at FROM ekiden.revisions
    WHERE approved_at IS NOT NULL AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase
), judged AS (
    SELECT b.session_id, b.phase, b.generation, a.at <= b.at AS holds
    FROM begun b LEFT JOIN approved a ON a.session_id = b.session_id AND a.phase = b.phase - 1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

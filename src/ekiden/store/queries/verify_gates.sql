-- Invariants of outputs and gates, for ekiden verify. See verify_sessions.sql for the form.
--
-- There is a gate after each phase but the last, unless its policy lets the session pass by itself:
-- then the output is approved by 'flow' in the hand-off, and nobody reviews it.

-- name: verify_outputs_are_results
-- Every INTEGRATE task that is COMPLETED is the first revision of its phase's output, and every
-- revision that a model made points at such a task: no output is made up. What a fork shares is
-- judged by forks_share_outputs.
WITH outputs AS (
    SELECT * FROM ekiden.revisions
    WHERE task_id IS NOT NULL AND fork_of IS NULL AND ($1::uuid IS NULL OR session_id = $1)
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
-- A revision that passed a gate has exactly one review that passed it, and no other has any: none that
-- waits, none that the session passed by itself.
WITH given AS (
    SELECT session_id, phase, revision_id, count(*) AS reviews FROM ekiden.reviews
    WHERE verb = 'approve' AND passes AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase, revision_id
), asked AS (
    SELECT r.id, r.session_id, r.phase,
           (r.approved_at IS NOT NULL AND r.approved_by NOT IN ('flow', 'fork'))::int AS reviews
    FROM ekiden.revisions r
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
-- Every run of a phase has one cause: the session's creation (with the phases that a fork shares), a
-- reject or rerun, or one approval, by a person or by the flow; and each approval began one run or
-- completed the session.
WITH runs AS (
    SELECT session_id, count(*) AS runs FROM ekiden.phase_runs
    WHERE $1::uuid IS NULL OR session_id = $1 GROUP BY session_id
), sent AS (
    SELECT session_id, count(*) FILTER (WHERE verb IN ('reject', 'rerun')) AS back,
           count(*) FILTER (WHERE verb = 'approve' AND passes) AS approved
    FROM ekiden.reviews WHERE $1::uuid IS NULL OR session_id = $1 GROUP BY session_id
), flowed AS (
    SELECT session_id, count(*) AS approved FROM ekiden.revisions
    WHERE approved_by = 'flow' AND ($1::uuid IS NULL OR session_id = $1) GROUP BY session_id
), ended AS (
    SELECT session_id, count(*) AS completed FROM ekiden.events
    WHERE type = 'session_completed' AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id
), judged AS (
    SELECT s.id AS session_id,
           r.runs = 1 + coalesce(s.parent_phase, 0) + coalesce(v.back, 0) + coalesce(v.approved, 0)
                    + coalesce(f.approved, 0) - coalesce(e.completed, 0) AS holds
    FROM ekiden.sessions s
    LEFT JOIN runs r ON r.session_id = s.id LEFT JOIN sent v ON v.session_id = s.id
    LEFT JOIN flowed f ON f.session_id = s.id LEFT JOIN ended e ON e.session_id = s.id
    WHERE $1::uuid IS NULL OR s.id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(session_id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_forks_share_outputs
-- What a fork shares is what its parent has: the very result of a task, or the text of a person.
WITH judged AS (
    SELECT r.session_id, r.phase,
           r.task_id IS NOT DISTINCT FROM o.task_id AND r.output::text IS NOT DISTINCT FROM o.output::text
           AND o.session_id = s.parent_id AND o.phase = r.phase AND r.phase <= s.parent_phase
           AND o.approved_at IS NOT NULL AS holds
    FROM ekiden.revisions r JOIN ekiden.sessions s ON s.id = r.session_id
    LEFT JOIN ekiden.revisions o ON o.id = r.fork_of
    WHERE r.fork_of IS NOT NULL AND ($1::uuid IS NULL OR r.session_id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase)) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_budgets_were_kept
-- Nothing was reserved beyond a budget: what calls cost that were reserved under it stays within what
-- was reserved for them.
WITH judged AS (
    SELECT r.session_id, r.task_id, r.attempt, r.number,
           coalesce(max(c.cost_usd) <= r.cost_usd, true) AS holds
    FROM ekiden.reservations r
    LEFT JOIN ekiden.calls c ON c.task_id = r.task_id AND c.attempt = r.attempt
                                AND c.number = r.number
    WHERE $1::uuid IS NULL OR r.session_id = $1
    GROUP BY r.session_id, r.task_id, r.attempt, r.number, r.cost_usd
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', task_id, attempt, number))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_phases_begin_after_approval
-- No task of a phase was made before the output of each earlier one was approved: the newest revision
-- that there was by then, of the newest run that was begun by then. So no phase is made of an output
-- that is being made anew, or that still waits for a decision.
WITH begun AS (
    SELECT session_id, phase, generation, min(created_at) AS at FROM ekiden.api_tasks
    WHERE phase > 1 AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase, generation
), earlier AS (
    SELECT b.session_id, b.phase, b.generation, b.at, p.phase AS of_phase, max(p.generation) AS run
    FROM begun b JOIN ekiden.phase_runs p
        ON p.session_id = b.session_id AND p.phase < b.phase AND p.started_at <= b.at
    GROUP BY b.session_id, b.phase, b.generation, b.at, p.phase
), stood AS (
    SELECT DISTINCT ON (e.session_id, e.phase, e.generation, e.of_phase)
           e.session_id, e.phase, e.generation, r.approved_at <= e.at AS approved
    FROM earlier e JOIN ekiden.revisions r
        ON r.session_id = e.session_id AND r.phase = e.of_phase AND r.generation = e.run
       AND r.created_at <= e.at
    ORDER BY e.session_id, e.phase, e.generation, e.of_phase, r.number DESC
), judged AS (
    SELECT b.session_id, b.phase, b.generation,
           count(*) FILTER (WHERE s.approved) = b.phase - 1 AS holds
    FROM begun b LEFT JOIN stood s USING (session_id, phase, generation)
    GROUP BY b.session_id, b.phase, b.generation
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase, generation))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

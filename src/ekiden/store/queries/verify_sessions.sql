-- Invariants of sessions, for ekiden verify.
--
-- Each of these queries gives one row: how many rows it judged, how many of them break the invariant,
-- and up to 20 ids of those. $1 is the session to judge, or null for all. What is neither true nor
-- false (a row that should be there and is not) breaks the invariant: IS NOT TRUE.
--
-- All of them are judged on one snapshot, so they may compare any table with any other: whatever
-- changes a session is one transaction. Between two transactions of different kinds (an answer that
-- is stored, and the attempt that ends) nothing is assumed but their order.
--
-- A task that was given up while its siblings went on (tolerated) is in nobody's way, and neither is
-- one that was cancelled because its phase was begun anew.
--
-- Sessions that are under way are few, and their tasks are looked up by index. Where all sessions
-- are judged the tables are read once and hashed: no part is read again for each row of another.

-- name: verify_settings
-- Sets settings ($1 names, $2 values) for this transaction, which works behind a pooler as well.
SELECT set_config(s.name, s.value, true) FROM unnest($1::text[], $2::text[]) AS s(name, value);

-- name: verify_counts
-- When it was looked, and what there is in all.
SELECT ekiden.now() AS checked_at,
       (SELECT count(*) FROM ekiden.sessions WHERE $1::uuid IS NULL OR id = $1) AS sessions,
       t.tasks,
       t.running + (SELECT count(*) FROM ekiden.attempts
                    WHERE $1::uuid IS NULL
                       OR task_id IN (SELECT id FROM ekiden.api_tasks WHERE session_id = $1))
           AS attempts,
       (SELECT count(*) FROM ekiden.calls WHERE $1::uuid IS NULL OR session_id = $1) AS calls
FROM (SELECT count(*) AS tasks, count(*) FILTER (WHERE status = 'RUNNING') AS running
      FROM ekiden.api_tasks WHERE $1::uuid IS NULL OR session_id = $1) AS t;

-- name: verify_running_sessions_have_work
-- RUNNING: the current step has tasks that are queued or run, or all that is open there is held until
-- process-async. Nothing has failed, and nothing is open anywhere else.
WITH judged AS (
    SELECT s.id, s.error IS NULL AND o.here > 0 AND o.here = o.open AND o.live = o.open
                 AND (o.held = 0 OR o.held = o.open) AS holds
    FROM ekiden.sessions s CROSS JOIN LATERAL (
        SELECT count(*) AS open,
               count(*) FILTER (WHERE (t.phase, t.generation, t.step)
                                      = (s.phase, s.generation, s.step)) AS here,
               count(*) FILTER (WHERE t.status IN ('QUEUED', 'RUNNING')) AS live,
               count(*) FILTER (WHERE t.awaiting) AS held
        FROM ekiden.api_tasks t
        WHERE t.session_id = s.id AND t.status <> 'COMPLETED' AND NOT t.tolerated
          AND (t.status <> 'CANCELLED' OR (t.phase, t.generation) = (s.phase, s.generation))
    ) AS o
    WHERE s.status = 'RUNNING' AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_waiting_sessions_stand_at_a_gate
-- AWAITING_REVIEW: the newest revision of the current phase waits for approval, another phase
-- follows, and no task is open.
WITH judged AS (
    SELECT s.id, s.error IS NULL AND s.phase < jsonb_array_length(f.phases)
                 AND NOT EXISTS (SELECT FROM ekiden.api_tasks t
                                 WHERE t.session_id = s.id AND NOT t.tolerated
                                   AND t.status NOT IN ('COMPLETED', 'CANCELLED'))
                 AND s.waiting_since IS NOT NULL
                 AND (SELECT r.approved_at IS NULL FROM ekiden.revisions r
                      WHERE r.session_id = s.id AND r.phase = s.phase
                        AND r.generation = s.generation
                      ORDER BY r.number DESC LIMIT 1) AS holds
    FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
    WHERE s.status = 'AWAITING_REVIEW' AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_paused_sessions_are_held
-- PAUSED: what is open is of the current step and is held or still runs. Nothing may be claimed. Where
-- items have failed, nothing is open at all.
WITH judged AS (
    SELECT s.id, s.error IS NULL AND o.here = o.open AND o.held + o.running = o.open
                 AND (o.open = 0) = coalesce(s.stop ->> 'kind' = 'items', false) AS holds
    FROM ekiden.sessions s CROSS JOIN LATERAL (
        SELECT count(*) AS open,
               count(*) FILTER (WHERE (t.phase, t.generation, t.step)
                                      = (s.phase, s.generation, s.step)) AS here,
               count(*) FILTER (WHERE t.awaiting AND NOT t.queued) AS held,
               count(*) FILTER (WHERE t.status = 'RUNNING') AS running
        FROM ekiden.api_tasks t
        WHERE t.session_id = s.id AND t.status <> 'COMPLETED' AND NOT t.tolerated
          AND (t.status <> 'CANCELLED' OR (t.phase, t.generation) = (s.phase, s.generation))
    ) AS o
    WHERE s.status = 'PAUSED' AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_failed_sessions_have_a_cause
-- FAILED: the session says why, and a task of the current step has failed and says why. Its siblings
-- may still be queued, held or run.
WITH judged AS (
    SELECT s.id, s.error IS NOT NULL AND o.failed > 0 AND o.here = o.open
                 AND o.unexplained = 0 AND o.cancelled = 0 AS holds
    FROM ekiden.sessions s CROSS JOIN LATERAL (
        SELECT count(*) AS open,
               count(*) FILTER (WHERE (t.phase, t.generation, t.step)
                                      = (s.phase, s.generation, s.step)) AS here,
               count(*) FILTER (WHERE t.status = 'FAILED') AS failed,
               count(*) FILTER (WHERE t.status = 'FAILED' AND t.error IS NULL) AS unexplained,
               count(*) FILTER (WHERE t.status = 'CANCELLED') AS cancelled
        FROM ekiden.api_tasks t
        WHERE t.session_id = s.id AND t.status <> 'COMPLETED' AND NOT t.tolerated
          AND (t.status <> 'CANCELLED' OR (t.phase, t.generation) = (s.phase, s.generation))
    ) AS o
    WHERE s.status = 'FAILED' AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_ended_sessions_are_quiet
-- COMPLETED: every task of the newest runs is. CANCELLED: every task is COMPLETED or CANCELLED.
WITH open AS (
    SELECT t.session_id, count(*) FILTER (WHERE t.status <> 'CANCELLED') AS live,
           count(*) FILTER (WHERE t.status <> 'CANCELLED'
                            OR NOT EXISTS (SELECT FROM ekiden.phase_runs newer
                                           WHERE newer.session_id = t.session_id
                                             AND newer.phase = t.phase
                                             AND newer.generation > t.generation)) AS open
    FROM ekiden.api_tasks t
    WHERE t.status <> 'COMPLETED' AND NOT t.tolerated
      AND ($1::uuid IS NULL OR t.session_id = $1)
    GROUP BY t.session_id
), judged AS (
    SELECT s.id, CASE s.status WHEN 'COMPLETED' THEN coalesce(o.open, 0) = 0
                               ELSE coalesce(o.live, 0) = 0 END AS holds
    FROM ekiden.sessions s LEFT JOIN open o ON o.session_id = s.id
    WHERE s.status IN ('COMPLETED', 'CANCELLED') AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_completed_sessions_are_whole
-- COMPLETED: every phase of the flow has an approved output, and the cursor is at the last step of a
-- phase: of the flow's last one, unless that still held when an earlier one was run again.
WITH approved AS (
    SELECT session_id, count(DISTINCT phase) AS phases FROM ekiden.revisions
    WHERE approved_at IS NOT NULL AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id
), judged AS (
    SELECT s.id, a.phases = jsonb_array_length(f.phases)
                 AND (s.phase = jsonb_array_length(f.phases)
                      OR jsonb_array_length(f.phases) = ANY (s.kept))
                 AND s.step = f.phases -> (s.phase - 1) -> 'steps' ->> -1
                 AND s.error IS NULL AS holds
    FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
    LEFT JOIN approved a ON a.session_id = s.id
    WHERE s.status = 'COMPLETED' AND ($1::uuid IS NULL OR s.id = $1)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_open_tasks_are_counted
-- open_tasks is the number of tasks of the current step that are not COMPLETED, whatever the status.
WITH open AS (
    SELECT session_id, phase, generation, step, count(*) AS open FROM ekiden.api_tasks
    WHERE status <> 'COMPLETED' AND NOT tolerated AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id, phase, generation, step
), judged AS (
    SELECT s.id, s.open_tasks = coalesce(o.open, 0) AS holds
    FROM ekiden.sessions s LEFT JOIN open o
        ON (o.session_id, o.phase, o.generation, o.step) = (s.id, s.phase, s.generation, s.step)
    WHERE $1::uuid IS NULL OR s.id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_cursors_are_at_the_newest_step
-- The cursor is where the session's newest task is, or at an earlier phase whose output a person has
-- edited. Newest by id: ids are drawn under the session's lock, and no clock can set them back.
WITH newest AS (
    SELECT session_id, max(id) AS id FROM ekiden.api_tasks
    WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id
), judged AS (
    SELECT s.id, (t.phase, t.generation, t.step) = (s.phase, s.generation, s.step)
                 OR EXISTS (SELECT FROM ekiden.reviews v
                            WHERE v.session_id = s.id AND v.verb = 'edit' AND v.phase = s.phase
                              AND v.generation = s.generation) AS holds
    FROM ekiden.sessions s
    LEFT JOIN newest n ON n.session_id = s.id LEFT JOIN ekiden.api_tasks t ON t.id = n.id
    WHERE $1::uuid IS NULL OR s.id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_phases_have_no_gap
-- The phases that were begun are 1, 2, … without a gap and no more than the flow has, the generations
-- of each are 1, 2, …, and the session is in the newest generation of its phase.
WITH runs AS (
    SELECT session_id, phase, count(*) AS runs, min(generation) AS first, max(generation) AS newest
    FROM ekiden.phase_runs WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY session_id, phase
), begun AS (
    SELECT session_id, count(*) AS phases, min(phase) AS first, max(phase) AS last,
           bool_and(first = 1 AND newest = runs) AS counted
    FROM runs GROUP BY session_id
), judged AS (
    SELECT s.id, b.counted AND b.first = 1 AND b.last = b.phases
                 AND b.last <= jsonb_array_length(f.phases) AND r.newest = s.generation AS holds
    FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
    LEFT JOIN begun b ON b.session_id = s.id
    LEFT JOIN runs r ON r.session_id = s.id AND r.phase = s.phase
    WHERE $1::uuid IS NULL OR s.id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_drafts_follow_completion
-- Only a session that was COMPLETED has drafts, one set a run of its last phase.
WITH judged AS (
    SELECT d.id, EXISTS (SELECT FROM ekiden.events e
                         WHERE e.session_id = d.session_id AND e.type = 'session_completed')
                 AND EXISTS (SELECT FROM ekiden.phase_runs r
                             WHERE r.session_id = d.session_id AND r.generation = d.generation
                               AND r.phase = jsonb_array_length(f.phases)) AS holds
    FROM ekiden.drafts d JOIN ekiden.sessions s ON s.id = d.session_id
    JOIN ekiden.flows f ON f.id = s.flow_id
    WHERE $1::uuid IS NULL OR d.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

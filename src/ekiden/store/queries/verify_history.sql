-- Invariants of the history and of belonging, for ekiden verify. See verify_sessions.sql for the form.

-- name: verify_completions_are_told_once
-- A COMPLETED task has exactly one event task_completed, and no other task has any.
WITH told AS (
    SELECT task_id, count(*) AS events FROM ekiden.events
    WHERE type = 'task_completed' AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY task_id
), judged AS (
    SELECT t.id, coalesce(e.events, 0) = (t.status = 'COMPLETED')::int AS holds
    FROM ekiden.api_tasks t LEFT JOIN told e ON e.task_id = t.id
    WHERE $1::uuid IS NULL OR t.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_troubles_are_told_once
-- Each attempt that was retried, failed, lost or given back has its event. One that was given back to
-- wait for something says what for, and is told like one that is tried again.
WITH told AS (
    SELECT task_id,
           count(*) FILTER (WHERE type = 'task_retried') AS retried,
           count(*) FILTER (WHERE type IN ('task_failed', 'task_rescued', 'item_dropped')) AS failed,
           count(*) FILTER (WHERE type IN ('task_released', 'result_delivered',
                                           'budget_reached')) AS released
    FROM ekiden.events
    WHERE type IN ('task_retried', 'task_failed', 'task_rescued', 'task_released',
                   'result_delivered', 'item_dropped', 'budget_reached') AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY task_id
), ended AS (
    SELECT task_id,
           count(*) FILTER (WHERE outcome = 'RETRIED'
                            OR outcome = 'RELEASED' AND error IS NOT NULL) AS retried,
           count(*) FILTER (WHERE outcome IN ('FAILED', 'LOST')) AS failed,
           count(*) FILTER (WHERE outcome = 'RELEASED' AND error IS NULL) AS released
    FROM ekiden.attempts
    WHERE outcome IN ('RETRIED', 'FAILED', 'LOST', 'RELEASED')
      AND ($1::uuid IS NULL OR task_id IN (SELECT id FROM ekiden.api_tasks WHERE session_id = $1))
    GROUP BY task_id
), judged AS (
    SELECT task_id, (t.retried, t.failed, t.released) = (e.retried, e.failed, e.released) AS holds
    FROM told t FULL JOIN ended e USING (task_id)
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(task_id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_sessions_are_told_once
-- A session has one event for its creation, one for its cancellation if it came to that, and one for
-- each time it was completed: a rerun or an edit takes it up again.
WITH told AS (
    SELECT session_id,
           count(*) FILTER (WHERE type = 'session_created') AS created,
           count(*) FILTER (WHERE type = 'session_completed') AS completed,
           count(*) FILTER (WHERE type = 'session_cancelled') AS cancelled
    FROM ekiden.events
    WHERE type IN ('session_created', 'session_completed', 'session_cancelled')
      AND ($1::uuid IS NULL OR session_id = $1)
    GROUP BY session_id
), judged AS (
    SELECT s.id, t.created = 1 AND (t.completed > 0 OR s.status <> 'COMPLETED')
                 AND t.completed <= 1 + (SELECT count(*) FROM ekiden.reviews v
                                         WHERE v.session_id = s.id AND v.verb IN ('rerun', 'edit'))
                 AND t.cancelled = (s.status = 'CANCELLED')::int AS holds
    FROM ekiden.sessions s LEFT JOIN told t ON t.session_id = s.id
    WHERE $1::uuid IS NULL OR s.id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(id::text) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_gates_are_told_once
-- A gate has one event for each time it opened: for the output of a model that a person had to look
-- at, and for an edit that brought the session back to it; and one for each time it was passed.
WITH counted AS (
    SELECT session_id, phase, 1 AS opened, 0 AS approved, 0 AS told_opened, 0 AS told_approved,
           0 AS edits
    FROM ekiden.revisions
    WHERE task_id IS NOT NULL AND approved_by IS DISTINCT FROM 'flow' AND fork_of IS NULL
      AND ($1::uuid IS NULL OR session_id = $1)
    UNION ALL
    SELECT session_id, phase, 0, (verb = 'approve' AND passes)::int, 0, 0, (verb = 'edit')::int
    FROM ekiden.reviews WHERE verb IN ('approve', 'edit') AND ($1::uuid IS NULL OR session_id = $1)
    UNION ALL
    SELECT session_id, phase, 0, 0, (type = 'gate_opened')::int, (type = 'gate_approved')::int, 0
    FROM ekiden.events
    WHERE type IN ('gate_opened', 'gate_approved') AND ($1::uuid IS NULL OR session_id = $1)
), judged AS (
    SELECT session_id, phase,
           sum(told_opened) BETWEEN sum(opened) AND sum(opened) + sum(edits)
           AND sum(approved) = sum(told_approved) AS holds
    FROM counted GROUP BY session_id, phase
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', session_id, phase)) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_nothing_is_orphaned
-- Tasks, events, revisions, reviews and drafts have their session, attempts and events their task,
-- attempts their worker. (Attempts name no session: with $1 only those of its tasks are judged.)
WITH judged AS (
    SELECT 'task' AS kind, t.id, s.id IS NOT NULL AS holds
    FROM ekiden.api_tasks t LEFT JOIN ekiden.sessions s ON s.id = t.session_id
    WHERE $1::uuid IS NULL OR t.session_id = $1
    UNION ALL
    SELECT 'attempt of task', a.task_id, t.id IS NOT NULL AND w.id IS NOT NULL
    FROM ekiden.attempts a LEFT JOIN ekiden.api_tasks t ON t.id = a.task_id
    LEFT JOIN ekiden.workers w ON w.id = a.worker_id
    WHERE $1::uuid IS NULL OR t.session_id = $1
    UNION ALL
    SELECT 'event', e.id, s.id IS NOT NULL AND (e.task_id IS NULL OR t.session_id = e.session_id)
    FROM ekiden.events e LEFT JOIN ekiden.sessions s ON s.id = e.session_id
    LEFT JOIN ekiden.api_tasks t ON t.id = e.task_id
    WHERE $1::uuid IS NULL OR e.session_id = $1
    UNION ALL
    SELECT 'revision', r.id, s.id IS NOT NULL
    FROM ekiden.revisions r LEFT JOIN ekiden.sessions s ON s.id = r.session_id
    WHERE $1::uuid IS NULL OR r.session_id = $1
    UNION ALL
    SELECT 'review', r.id, s.id IS NOT NULL AND (r.revision_id IS NULL OR v.id IS NOT NULL)
    FROM ekiden.reviews r LEFT JOIN ekiden.sessions s ON s.id = r.session_id
    LEFT JOIN ekiden.revisions v ON v.id = r.revision_id
    WHERE $1::uuid IS NULL OR r.session_id = $1
    UNION ALL
    SELECT 'draft', d.id, s.id IS NOT NULL
    FROM ekiden.drafts d LEFT JOIN ekiden.sessions s ON s.id = d.session_id
    WHERE $1::uuid IS NULL OR d.session_id = $1
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(kind || ' ' || id) FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

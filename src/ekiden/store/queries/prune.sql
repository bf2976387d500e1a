-- Retention: sessions that nobody comes back to go with all that belongs to them. Those are the
-- COMPLETED and CANCELLED ones, and the FAILED ones that were put away.

-- name: prunable_sessions
-- How many sessions ended, or failed and were put away, before $1, have nothing under way and share
-- nothing with a fork that stays.
SELECT count(*) FROM ekiden.sessions s
WHERE (s.status IN ('COMPLETED', 'CANCELLED') AND s.completed_at < $1
       OR s.status = 'FAILED' AND s.archived_at < $1)
  AND NOT EXISTS (SELECT FROM ekiden.api_tasks t
                  WHERE t.session_id = s.id AND (t.status = 'RUNNING' OR t.queued))
  AND NOT EXISTS (SELECT FROM ekiden.sessions f WHERE f.parent_id = s.id);

-- name: lock_prunable
-- Takes the locks of at most $2 sessions that ended, or failed and were put away, before $1, the oldest
-- after session $3 first, so that all batches walk the index once; one that somebody is busy with is
-- left for another time.
SELECT s.id FROM ekiden.sessions s
WHERE (s.status IN ('COMPLETED', 'CANCELLED') AND s.completed_at < $1
       OR s.status = 'FAILED' AND s.archived_at < $1)
  AND s.id > $3
ORDER BY s.id LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: prune_sessions
-- Deletes those of the sessions $1 that have nothing under way and share nothing with a fork. They are
-- locked, and nobody can fork or resume them any more; its snapshot is younger than the locks, so
-- nothing that was done before is missed. One statement: whoever looks sees a session whole or not at
-- all.
WITH chosen AS MATERIALIZED (
    SELECT s.id FROM ekiden.sessions s
    WHERE s.id = ANY ($1::uuid[])
      -- The siblings of what failed may still run: their answers are paid for.
      AND NOT EXISTS (SELECT FROM ekiden.api_tasks t
                      WHERE t.session_id = s.id AND (t.status = 'RUNNING' OR t.queued))
      -- What a fork shares is its parent's: the parent stays as long.
      AND NOT EXISTS (SELECT FROM ekiden.sessions f WHERE f.parent_id = s.id)
), tasks AS (
    DELETE FROM ekiden.api_tasks t USING chosen c WHERE t.session_id = c.id RETURNING t.id
), attempts AS (
    DELETE FROM ekiden.attempts a USING tasks t WHERE a.task_id = t.id
), partials AS (
    DELETE FROM ekiden.partials p USING tasks t WHERE p.task_id = t.id
), logs AS (
    DELETE FROM ekiden.attempt_logs l USING tasks t WHERE l.task_id = t.id
), started AS (
    DELETE FROM ekiden.started_calls s USING tasks t WHERE s.task_id = t.id
), calls AS (
    DELETE FROM ekiden.calls k USING chosen c WHERE k.session_id = c.id
), reservations AS (
    DELETE FROM ekiden.reservations r USING chosen c WHERE r.session_id = c.id
), errands AS (
    DELETE FROM ekiden.errands e USING chosen c WHERE e.session_id = c.id
), reviews AS (
    DELETE FROM ekiden.reviews r USING chosen c WHERE r.session_id = c.id
), revisions AS (
    DELETE FROM ekiden.revisions r USING chosen c WHERE r.session_id = c.id
), events AS (
    DELETE FROM ekiden.events e USING chosen c WHERE e.session_id = c.id
), gone AS (
    DELETE FROM ekiden.sessions s USING chosen c WHERE s.id = c.id RETURNING s.id
)
SELECT count(*) AS sessions, (SELECT count(*) FROM tasks) AS tasks FROM gone;

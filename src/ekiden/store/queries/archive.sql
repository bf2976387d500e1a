-- Finished sessions, put away and brought back. A flag: what a session may do stays as it was, and
-- resume, edit and rerun bring it back by themselves.

-- name: archive_sessions
-- Puts the sessions $1 away, or brings them back when $2 is false; those of another flow than $3
-- (null: any) are not there. Returns each that is there and whether this changed it: what does not
-- stand still, and what is so already, stays as it is.
WITH locked AS MATERIALIZED (
    SELECT s.id, s.status, s.archived_at FROM ekiden.sessions s
    WHERE s.id = ANY ($1::uuid[])
      AND ($3::text IS NULL OR s.flow_id IN (SELECT f.id FROM ekiden.flows f WHERE f.name = $3))
    ORDER BY s.id FOR UPDATE
), changed AS (
    UPDATE ekiden.sessions s SET archived_at = CASE WHEN $2 THEN ekiden.now() END
    FROM locked l
    WHERE s.id = l.id AND l.status IN ('COMPLETED', 'FAILED', 'CANCELLED')
      AND (l.archived_at IS NULL) = $2::boolean
    RETURNING s.id
), told AS (
    INSERT INTO ekiden.events (session_id, type, data)
    SELECT c.id, CASE WHEN $2 THEN 'session_archived' ELSE 'session_unarchived' END,
           json_build_object('actor', $4::text)
    FROM changed c
)
SELECT l.id::text, l.status,
       CASE WHEN c.id IS NULL THEN l.archived_at IS NOT NULL ELSE $2 END AS archived
FROM locked l LEFT JOIN changed c ON c.id = l.id
ORDER BY l.id;

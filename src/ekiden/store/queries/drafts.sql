-- The board of drafts.

-- name: page_drafts
-- Drafts with the session they come from, newest first: of a status $1 or, when null, of all that
-- are not archived, with ids below $2 or from the newest; $4 is one session or null.
SELECT d.id, d.session_id::text, d.generation, d.number, d.title, d.body::text, d.sources::text, d.created_at,
       d.status, d.change, d.changed_by, d.changed_at, s.title AS session_title, f.name AS flow
FROM ekiden.drafts d JOIN ekiden.sessions s ON s.id = d.session_id
JOIN ekiden.flows f ON f.id = s.flow_id
WHERE CASE WHEN $1::text IS NULL THEN d.status <> 'ARCHIVED' ELSE d.status = $1 END
  AND ($2::bigint IS NULL OR d.id < $2) AND ($4::uuid IS NULL OR d.session_id = $4)
ORDER BY d.id DESC LIMIT $3;

-- name: page_draft_counts
-- How many drafts there are of each status.
SELECT d.status, count(*) AS drafts FROM ekiden.drafts d GROUP BY d.status;

-- name: move_draft
-- Gives a draft another status, if it still has the one that was seen ($3).
UPDATE ekiden.drafts
SET status = $2, change = 'moved', changed_by = $4, changed_at = ekiden.now()
WHERE id = $1 AND status = $3
RETURNING id;

-- name: edit_draft
-- Gives a draft another title and body, if nobody changed it since ($4, null for never).
UPDATE ekiden.drafts
SET title = $2, body = $3::json, change = 'edited', changed_by = $5, changed_at = ekiden.now()
WHERE id = $1 AND changed_at IS NOT DISTINCT FROM $4::timestamptz
RETURNING id;

-- name: get_draft
-- One draft with the session it comes from.
SELECT d.id, d.session_id::text, d.generation, d.number, d.title, d.body::text, d.sources::text,
       d.created_at, d.status, d.change, d.changed_by, d.changed_at, s.title AS session_title, f.name AS flow
FROM ekiden.drafts d JOIN ekiden.sessions s ON s.id = d.session_id
JOIN ekiden.flows f ON f.id = s.flow_id WHERE d.id = $1;

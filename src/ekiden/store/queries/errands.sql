-- What is owed outside: webhooks, reminders, deadlines. Claimed and retried like tasks; a claim is a
-- date in the future, so one whose worker died is due again by itself.

-- name: claim_errands
-- Takes due errands for $3; nobody else sees them as due until then. Each receiver has $1 places, and
-- so have the gates, which are receiver 0; $2 has the receiver of each errand that is under way here.
WITH due AS MATERIALIZED (
    SELECT e.id, receiver.id AS receiver
    FROM (SELECT 0 AS id UNION ALL SELECT id FROM ekiden.webhooks) AS receiver
    CROSS JOIN LATERAL (
        SELECT id FROM ekiden.errands
        WHERE status = 'QUEUED' AND coalesce(webhook_id, 0) = receiver.id
          AND available_at <= ekiden.now()
        ORDER BY available_at, id
        LIMIT greatest(0, $1 - cardinality(array_positions($2::int[], receiver.id)))
        FOR UPDATE SKIP LOCKED
    ) AS e
)
UPDATE ekiden.errands e
SET attempt = attempt + 1, available_at = ekiden.now() + $3
FROM due WHERE e.id = due.id
RETURNING e.id, e.kind, e.session_id::text, e.alert_id, e.event, e.event_id, e.attempt, e.created_at,
          (SELECT w.url FROM ekiden.webhooks w WHERE w.id = e.webhook_id AND w.stopped_at IS NULL) AS url,
          (SELECT w.secret FROM ekiden.webhooks w WHERE w.id = e.webhook_id) AS secret, due.receiver;

-- name: next_errand
-- When the nearest errand becomes due of those whose receiver has a place (as above), as an interval
-- from now; null if there is none.
SELECT min(e.available_at) - ekiden.now()
FROM (SELECT 0 AS id UNION ALL SELECT id FROM ekiden.webhooks) AS receiver
CROSS JOIN LATERAL (
    SELECT available_at FROM ekiden.errands
    WHERE status = 'QUEUED' AND coalesce(webhook_id, 0) = receiver.id
    ORDER BY available_at LIMIT 1
) AS e
WHERE cardinality(array_positions($2::int[], receiver.id)) < $1;

-- name: end_errand
-- Notes what became of an attempt ($2) of an errand: $3 is DONE, FAILED or VOID, or QUEUED to try again
-- after $4. Fenced on the attempt.
WITH ended AS (
    UPDATE ekiden.errands
    SET status = $3, available_at = CASE WHEN $3 = 'QUEUED' THEN ekiden.now() + $4 ELSE available_at END,
        finished_at = CASE WHEN $3 <> 'QUEUED' THEN ekiden.now() END
    WHERE id = $1 AND attempt = $2 AND status = 'QUEUED'
    RETURNING id
)
INSERT INTO ekiden.errand_attempts (errand_id, number, http_status, error, took)
SELECT id, $2, $5, $6, $7 FROM ended
RETURNING errand_id;

-- name: remind_of_gate
-- Tells of the gate that an errand ($1) is of again, if it is open still.
INSERT INTO ekiden.events (session_id, type, phase)
SELECT s.id, 'gate_reminded', s.phase
FROM ekiden.errands e JOIN ekiden.sessions s ON s.id = e.session_id
WHERE e.id = $1 AND s.status = 'AWAITING_REVIEW' AND (s.phase, s.generation) = (e.phase, e.generation)
  AND s.waiting_since <= e.created_at
RETURNING id;

-- name: gate_is_open
-- Whether the gate that an errand ($1) is of is open still. One that was passed and is opened again is
-- another: its session has waited only since then, and errands of its own are owed.
SELECT EXISTS (
    SELECT FROM ekiden.errands e JOIN ekiden.sessions s ON s.id = e.session_id
    WHERE e.id = $1 AND s.status = 'AWAITING_REVIEW'
      AND (s.phase, s.generation) = (e.phase, e.generation) AND s.waiting_since <= e.created_at);

-- name: add_webhook
-- Makes somebody known who wants to be told.
INSERT INTO ekiden.webhooks (url, secret, events) VALUES ($1, $2, $3) RETURNING id;

-- name: list_webhooks
-- Who is told, and how that went: the last answer, and how many were not delivered.
SELECT w.id, w.url, w.events, w.created_at, w.stopped_at,
       (SELECT count(*) FROM ekiden.errands e WHERE e.webhook_id = w.id AND e.status = 'DONE') AS delivered,
       (SELECT count(*) FROM ekiden.errands e WHERE e.webhook_id = w.id AND e.status = 'QUEUED') AS waiting,
       (SELECT count(*) FROM ekiden.errands e WHERE e.webhook_id = w.id AND e.status = 'FAILED') AS failed
FROM ekiden.webhooks w ORDER BY w.id;

-- name: stop_webhook
-- Tells somebody no more; what is still owed to them is dropped.
WITH stopped AS (
    UPDATE ekiden.webhooks SET stopped_at = ekiden.now() WHERE id = $1 AND stopped_at IS NULL
    RETURNING id
), dropped AS (
    UPDATE ekiden.errands e SET status = 'VOID', finished_at = ekiden.now()
    FROM stopped s WHERE e.webhook_id = s.id AND e.status = 'QUEUED'
)
SELECT id FROM stopped;

-- name: list_deliveries
-- The newest deliveries, with how each try went; of one session ($1) or all.
SELECT e.id, e.session_id::text, e.alert_id, e.event, e.status, e.attempt, w.url, e.created_at,
       e.finished_at,
       a.http_status, a.error, a.took, a.at
FROM ekiden.errands e
JOIN ekiden.webhooks w ON w.id = e.webhook_id
LEFT JOIN LATERAL (SELECT t.http_status, t.error, t.took, t.at FROM ekiden.errand_attempts t
                   WHERE t.errand_id = e.id ORDER BY t.number DESC LIMIT 1) a ON true
WHERE $1::uuid IS NULL OR e.session_id = $1
ORDER BY e.id DESC LIMIT $2;

-- What is owed outside: webhooks, reminders, deadlines. Claimed and retried like tasks; a claim is a
-- date in the future, so one whose worker died is due again by itself.

-- name: claim_errands
-- Takes up to $1 due errands for $2; nobody else sees them as due until then. Reminders and deadlines
-- before webhooks: one that swallows what it is sent takes long, and many of them must delay no gate.
WITH due AS MATERIALIZED (
    SELECT id FROM ekiden.errands
    WHERE status = 'QUEUED' AND available_at <= ekiden.now()
    ORDER BY kind = 'webhook', available_at, id LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE ekiden.errands e
SET attempt = attempt + 1, available_at = ekiden.now() + $2
FROM due WHERE e.id = due.id
RETURNING e.id, e.kind, e.session_id::text, e.alert_id, e.event, e.event_id, e.attempt, e.created_at,
          (SELECT w.url FROM ekiden.webhooks w WHERE w.id = e.webhook_id AND w.stopped_at IS NULL) AS url,
          (SELECT w.secret FROM ekiden.webhooks w WHERE w.id = e.webhook_id) AS secret;

-- name: next_errand
-- When the nearest errand becomes due, as an interval from now; null if there is none.
SELECT available_at - ekiden.now() FROM ekiden.errands WHERE status = 'QUEUED'
ORDER BY available_at, id LIMIT 1;

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

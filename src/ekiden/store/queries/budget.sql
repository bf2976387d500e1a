-- Budgets: what calls may cost is reserved before they are made.

-- name: lock_budgets
-- Takes the locks under which calls of a session are reserved, one after the other.
SELECT FROM ekiden.budgets WHERE session_id = $1 ORDER BY phase FOR UPDATE;

-- name: spent
-- Each budget that a call of phase $2 is under (null: every one of the session), with what it has
-- spent and what calls other than $3 to $5 may still cost that are under way. A call counts as what
-- was reserved for it until it is known what it did cost: until its answer was read, or for good where
-- it broke off while it was answered, or before (http_status 0), or nobody told. A reservation whose
-- call has no row in the ledger counts while its attempt runs; where its worker was lost, for good; and where its answer is
-- made in the background (a response of OpenAI), until a later attempt has asked anew. A call whose
-- price is not known counts in unpriced.
WITH calls AS (
    SELECT DISTINCT ON (c.task_id, c.attempt, c.number) t.phase, c.kind,
           CASE WHEN cut.off THEN coalesce(r.cost_usd, c.cost_usd)
                WHEN c.outcome = 'FAILED' THEN c.cost_usd
                ELSE coalesce(c.cost_usd, r.cost_usd) END AS cost_usd,
           CASE WHEN cut.off THEN coalesce(r.tokens, told.tokens)
                WHEN c.outcome = 'FAILED' THEN told.tokens
                ELSE coalesce(c.input_tokens + c.output_tokens, r.tokens, told.tokens)
           END AS tokens
    FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
    LEFT JOIN ekiden.reservations r ON r.session_id = c.session_id AND r.task_id = c.task_id
                                       AND r.attempt = c.attempt AND r.number = c.number
    CROSS JOIN LATERAL (
        SELECT coalesce(c.input_tokens, 0) + coalesce(c.output_tokens, 0) AS tokens
    ) AS told
    CROSS JOIN LATERAL (
        SELECT c.outcome = 'ABORTED'
               OR c.outcome = 'FAILED'
                  AND (told.tokens > 0 OR c.http_status < 300
                       OR EXISTS (SELECT FROM ekiden.partials p
                                  WHERE p.task_id = c.task_id AND p.attempt = c.attempt
                                    AND p.call = c.number)) AS off
    ) AS cut
    WHERE c.session_id = $1
    ORDER BY c.task_id, c.attempt, c.number, c.answer IS NULL
), reserved AS (
    SELECT r.phase, r.cost_usd, r.tokens
    FROM ekiden.reservations r
    JOIN ekiden.api_tasks t ON t.id = r.task_id
    LEFT JOIN ekiden.started_calls s ON s.task_id = r.task_id AND s.attempt = r.attempt
                                        AND s.number = r.number AND s.answer_id LIKE 'resp\_%'
    WHERE r.session_id = $1
      AND (r.task_id, r.attempt, r.number) IS DISTINCT FROM ($3::bigint, $4::int, $5::int)
      AND NOT EXISTS (SELECT FROM ekiden.calls c WHERE c.task_id = r.task_id
                      AND c.attempt = r.attempt AND c.number = r.number)
      AND CASE
          WHEN t.attempt = r.attempt AND t.status = 'RUNNING' THEN true
          WHEN s.task_id IS NULL THEN
              EXISTS (SELECT FROM ekiden.attempts a WHERE a.task_id = r.task_id
                      AND a.number = r.attempt AND a.outcome = 'LOST')
          ELSE t.status IN ('QUEUED', 'RUNNING')
               AND (r.task_id, r.number) IS DISTINCT FROM ($3, $5)
               AND s.withdrawn_at IS NULL
               AND NOT EXISTS (SELECT FROM ekiden.reservations l
                               WHERE l.session_id = r.session_id AND l.task_id = r.task_id
                                 AND l.number = r.number AND l.attempt > r.attempt)
          END
)
SELECT b.phase, b.max_cost_usd, b.max_tokens,
       coalesce(c.cost, 0) AS cost_usd, coalesce(c.tokens, 0)::bigint AS tokens,
       coalesce(c.unpriced, 0) AS unpriced,
       coalesce(r.cost, 0) AS reserved_cost_usd, coalesce(r.tokens, 0)::bigint AS reserved_tokens
FROM ekiden.budgets b
LEFT JOIN LATERAL (SELECT sum(cost_usd) AS cost, sum(tokens) AS tokens,
                          count(*) FILTER (WHERE cost_usd IS NULL AND kind = 'ask'
                                           AND tokens > 0) AS unpriced
                   FROM calls WHERE b.phase IN (0, calls.phase)) c ON true
LEFT JOIN LATERAL (SELECT sum(cost_usd) AS cost, sum(tokens) AS tokens
                   FROM reserved WHERE b.phase IN (0, reserved.phase)) r ON true
WHERE b.session_id = $1 AND ($2::smallint IS NULL OR b.phase IN (0, $2))
ORDER BY b.phase;

-- name: limits_changed
-- Whether the limits that the stop $2 was decided on are no longer those of the session $1.
SELECT s.phase IS NOT NULL AND NOT EXISTS (
           SELECT FROM ekiden.budgets b
           WHERE b.session_id = $1 AND b.phase = s.phase
             AND b.max_cost_usd::float8 IS NOT DISTINCT FROM s.cost
             AND b.max_tokens IS NOT DISTINCT FROM s.tokens)
FROM json_to_record($2::json) AS j("ofPhase" int, "maxCostUsd" float8, "maxTokens" bigint)
CROSS JOIN LATERAL (SELECT j."ofPhase", j."maxCostUsd", j."maxTokens") AS s(phase, cost, tokens);

-- name: reserve
-- Notes what a call may cost at most.
INSERT INTO ekiden.reservations (session_id, task_id, attempt, number, phase, cost_usd, tokens)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (session_id, task_id, attempt, number) DO NOTHING;

-- name: unreserve
-- Takes back what was noted for a call that is not made after all: it was never sent.
DELETE FROM ekiden.reservations
WHERE session_id = $1 AND task_id = $2 AND attempt = $3 AND number = $4;

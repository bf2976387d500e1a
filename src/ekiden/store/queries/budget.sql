-- Budgets: what calls may cost is reserved before they are made.

-- name: lock_budgets
-- Takes the locks under which calls of a session are reserved, one after the other.
SELECT FROM ekiden.budgets WHERE session_id = $1 ORDER BY phase FOR UPDATE;

-- name: spent
-- Each budget that a call of phase $2 is under, with what it has spent and what calls under way may
-- still cost. A call whose price is not known counts in unpriced; a reservation counts while its call
-- has no row in the ledger and its attempt runs, or its answer is made in the background (a response of
-- OpenAI) and no later attempt has asked anew.
WITH calls AS (
    SELECT DISTINCT ON (c.task_id, c.attempt, c.number) t.phase, c.cost_usd, c.kind,
           coalesce(c.input_tokens, 0) + coalesce(c.output_tokens, 0) AS tokens
    FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
    WHERE c.session_id = $1
    ORDER BY c.task_id, c.attempt, c.number, c.answer IS NULL
), reserved AS (
    SELECT r.phase, r.cost_usd, r.tokens
    FROM ekiden.reservations r
    JOIN ekiden.api_tasks t ON t.id = r.task_id
    WHERE r.session_id = $1 AND (r.task_id, r.attempt, r.number) <> ($3::bigint, $4::int, $5::int)
      AND NOT EXISTS (SELECT FROM ekiden.calls c WHERE c.task_id = r.task_id
                      AND c.attempt = r.attempt AND c.number = r.number)
      AND (t.attempt = r.attempt AND t.status = 'RUNNING'
           OR t.status IN ('QUEUED', 'RUNNING') AND (r.task_id, r.number) <> ($3, $5)
              AND EXISTS (SELECT FROM ekiden.started_calls s
                          WHERE s.task_id = r.task_id AND s.attempt = r.attempt
                            AND s.number = r.number AND s.withdrawn_at IS NULL
                            AND s.answer_id LIKE 'resp\_%')
              AND NOT EXISTS (SELECT FROM ekiden.reservations l
                              WHERE l.session_id = r.session_id AND l.task_id = r.task_id
                                AND l.number = r.number AND l.attempt > r.attempt))
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
WHERE b.session_id = $1 AND b.phase IN (0, $2::smallint)
ORDER BY b.phase;

-- name: reserve
-- Notes what a call may cost at most.
INSERT INTO ekiden.reservations (session_id, task_id, attempt, number, phase, cost_usd, tokens)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (session_id, task_id, attempt, number) DO NOTHING;

-- name: list_budgets
-- The budgets of a session, with what they have spent and what calls under way may still cost.
WITH calls AS (
    SELECT DISTINCT ON (c.task_id, c.attempt, c.number) t.phase, c.cost_usd,
           coalesce(c.input_tokens, 0) + coalesce(c.output_tokens, 0) AS tokens
    FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
    WHERE c.session_id = $1
    ORDER BY c.task_id, c.attempt, c.number, c.answer IS NULL
)
SELECT b.phase, b.max_cost_usd, b.max_tokens, coalesce(c.cost, 0) AS cost_usd,
       coalesce(c.tokens, 0)::bigint AS tokens
FROM ekiden.budgets b
LEFT JOIN LATERAL (SELECT sum(cost_usd) AS cost, sum(tokens) AS tokens
                   FROM calls WHERE b.phase IN (0, calls.phase)) c ON true
WHERE b.session_id = $1 ORDER BY b.phase;

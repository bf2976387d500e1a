-- Invariants of the ledger, for ekiden verify. See verify_sessions.sql for the form.

-- name: verify_calls_belong_to_attempts
-- Calls, saved text and noted answer ids belong to an attempt of their session that ended or runs. It
-- may have ended before them: an answer that comes late is stored all the same.
WITH kept AS (
    SELECT 'call' AS kind, session_id, task_id, attempt, number FROM ekiden.calls
    WHERE $1::uuid IS NULL OR session_id = $1
    UNION ALL
    SELECT DISTINCT 'partial', session_id, task_id, attempt, call FROM ekiden.partials
    WHERE $1::uuid IS NULL OR session_id = $1
    UNION ALL
    SELECT 'started call', session_id, task_id, attempt, number FROM ekiden.started_calls
    WHERE $1::uuid IS NULL OR session_id = $1
), judged AS (
    SELECT k.kind, k.task_id, k.attempt, k.number,
           t.session_id = k.session_id
           AND (a.task_id IS NOT NULL OR t.status = 'RUNNING' AND t.attempt = k.attempt) AS holds
    FROM kept k LEFT JOIN ekiden.api_tasks t ON t.id = k.task_id
    LEFT JOIN ekiden.attempts a ON a.task_id = k.task_id AND a.number = k.attempt
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(kind || ' ' || concat_ws('/', task_id, attempt, number))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_calls_have_one_answer
-- A call of an attempt is in the ledger at most once with its answer, and at most once without (it
-- broke off, and what it had asked for was fetched later).
WITH judged AS (
    SELECT task_id, attempt, number, count(*) AS calls, count(*) = 1 AND number >= 1 AS holds
    FROM ekiden.calls WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY task_id, attempt, number, answer IS NULL
)
SELECT coalesce(sum(calls), 0)::bigint AS examined,
       count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', task_id, attempt, number))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_answers_are_paid_once
-- The ledger replays: no attempt paid for an answer that the task had when that attempt began. Judged
-- are the answered calls of second and later attempts, each against the usable answers of earlier
-- attempts to the same request ("had"). It was paid twice when
--   one of those has the same number in its attempt, or
--   there are more of them than numbers before this call that left no row: those were answered out of
--   the ledger, perhaps out of these, for equal questions of one attempt are answered one by one.
-- (The ledger does not say which answer an attempt took: one that asks in another order than before,
-- and one question more often, can be named here wrongly.)
-- An answer counts as had when it was stored a quarter of a second before the attempt began: a worker
-- that died may have had it on its way, and the commit comes after the time that is noted.
WITH again AS (
    SELECT c.session_id, c.task_id, c.attempt, c.number, c.kind, c.request_hash,
           coalesce(a.started_at, t.started_at) - interval '250 milliseconds' AS begun
    FROM ekiden.calls c JOIN ekiden.api_tasks t ON t.id = c.task_id
    LEFT JOIN ekiden.attempts a ON a.task_id = c.task_id AND a.number = c.attempt
    WHERE c.attempt > 1 AND c.answer IS NOT NULL AND ($1::uuid IS NULL OR c.session_id = $1)
), judged AS (
    SELECT g.task_id, g.attempt, g.number,
           NOT (had.same_number OR had.answers > g.number - 1 - made.calls) AS holds
    FROM again g
    CROSS JOIN LATERAL (
        SELECT count(*) AS answers, coalesce(bool_or(h.number = g.number), false) AS same_number
        FROM ekiden.calls h
        WHERE h.task_id = g.task_id AND h.attempt < g.attempt AND h.answer IS NOT NULL
          AND h.kind = g.kind AND h.request_hash = g.request_hash
          AND h.outcome = 'ANSWERED' AND h.finished_at < g.begun
    ) AS had
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT m.number) AS calls FROM ekiden.calls m
        WHERE m.task_id = g.task_id AND m.attempt = g.attempt AND m.number < g.number
    ) AS made
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', task_id, attempt, number))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_partials_have_no_gap
-- The saved text of a call is numbered 1, 2, … without a gap.
WITH judged AS (
    SELECT task_id, attempt, call, count(*) AS chunks,
           min(seq) = 1 AND max(seq) = count(*) AND count(DISTINCT seq) = count(*) AS holds
    FROM ekiden.partials WHERE $1::uuid IS NULL OR session_id = $1
    GROUP BY task_id, attempt, call
)
SELECT count(*) AS examined, count(*) FILTER (WHERE holds IS NOT TRUE) AS violations,
       (array_agg(concat_ws('/', task_id, attempt, call))
           FILTER (WHERE holds IS NOT TRUE))[1:20] AS ids
FROM judged;

-- name: verify_partials_and_answers
-- The saved text of each call whose answer is in the ledger, and that answer, to be compared by whoever
-- can read it. Rows, not a count.
SELECT concat_ws('/', p.task_id, p.attempt, p.call) AS id, p.text, c.answer, c.content_type
FROM (SELECT task_id, attempt, call, string_agg(text, '' ORDER BY seq) AS text
      FROM ekiden.partials WHERE $1::uuid IS NULL OR session_id = $1
      GROUP BY task_id, attempt, call) AS p
JOIN ekiden.calls c ON c.task_id = p.task_id AND c.attempt = p.attempt AND c.number = p.call
                   AND c.answer IS NOT NULL;

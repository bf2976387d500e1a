-- The text of running calls, and the ids that providers give to their answers.

-- name: append_partials
-- Appends chunks of many calls at once. One that is there already was sent before: the same text.
INSERT INTO ekiden.partials (session_id, task_id, attempt, call, seq, text)
SELECT p.session_id, p.task_id, p.attempt, p.call, p.seq, p.text
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::int[], $6::text[])
     AS p(session_id, task_id, attempt, call, seq, text)
ON CONFLICT DO NOTHING;

-- name: partial_texts
-- What each call of a task has said, all attempts.
SELECT attempt, call, string_agg(text, '' ORDER BY seq) AS text, count(*) AS chunks
FROM ekiden.partials WHERE session_id = $1 AND task_id = $2
GROUP BY attempt, call ORDER BY attempt, call;

-- name: follow_partials
-- The chunks that a reader of the session has not seen, oldest of each call first: of the attempts
-- that run, and of those it has seen chunks of ($2 to $5: task, attempt, call, last seq). Then the
-- attempts that run, as rows without a chunk: one snapshot says what was said and who may say more.
WITH seen AS (
    SELECT * FROM unnest($2::bigint[], $3::int[], $4::int[], $5::int[])
                  AS s(task_id, attempt, call, seq)
), running AS (
    SELECT id AS task_id, attempt FROM ekiden.api_tasks
    WHERE session_id = $1 AND status = 'RUNNING'
), unseen AS (
    SELECT p.task_id, p.attempt, p.call, p.seq, p.text
    FROM (SELECT task_id, attempt FROM running UNION SELECT task_id, attempt FROM seen) f
    CROSS JOIN LATERAL (
        SELECT * FROM ekiden.partials p
        WHERE p.task_id = f.task_id AND p.attempt = f.attempt AND p.session_id = $1
          AND p.seq > coalesce((SELECT s.seq FROM seen s WHERE s.task_id = p.task_id
                                AND s.attempt = p.attempt AND s.call = p.call), 0)
    ) p
    ORDER BY p.task_id, p.attempt, p.call, p.seq LIMIT $6
)
SELECT * FROM unseen UNION ALL SELECT task_id, attempt, NULL, NULL, NULL FROM running;

-- name: append_started_calls
-- Notes under which id the provider keeps the answer of a call that has begun, many at once.
INSERT INTO ekiden.started_calls (session_id, task_id, attempt, number, kind, provider, model,
                                  request_hash, answer_id)
SELECT s.session_id, s.task_id, s.attempt, s.number, s.kind, s.provider, s.model, s.request_hash,
       s.answer_id
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[],
            $8::bytea[], $9::text[])
     AS s(session_id, task_id, attempt, number, kind, provider, model, request_hash, answer_id)
ON CONFLICT DO NOTHING;

-- name: next_cut_call
-- The newest call of an earlier attempt that asked the same of the same model and was cut, with what it
-- had said; unless an answer has come to that since. $8 are the ids that were taken already.
SELECT s.attempt, s.number, s.answer_id, cut.said FROM ekiden.started_calls s
CROSS JOIN LATERAL (
    SELECT string_agg(p.text, '' ORDER BY p.seq) AS said FROM ekiden.partials p
    WHERE p.task_id = s.task_id AND p.attempt = s.attempt AND p.call = s.number
) AS cut
WHERE s.session_id = $1 AND s.task_id = $2 AND s.attempt < $3 AND s.kind = $4
  AND s.request_hash = $5 AND s.provider = $6 AND s.model = $7 AND s.answer_id <> ALL ($8::text[])
  AND cut.said IS NOT NULL
  AND NOT EXISTS (SELECT FROM ekiden.calls c
                  WHERE c.task_id = s.task_id AND c.kind = s.kind
                    AND c.request_hash = s.request_hash AND c.answer IS NOT NULL)
ORDER BY s.attempt DESC, s.number LIMIT 1;

-- name: unwanted_answers
-- Calls of tasks that are over whose answer may still be in the making: they began within three days,
-- have no answer here, and their provider was not told. A task that is COMPLETED had its result from
-- elsewhere. Only responses of OpenAI are made while nobody listens; the ids of other streams are noted
-- as well, and would crowd them out.
SELECT s.task_id, s.attempt, s.number, s.provider, s.model, s.answer_id
FROM ekiden.started_calls s JOIN ekiden.api_tasks t ON t.id = s.task_id
WHERE s.withdrawn_at IS NULL AND s.started_at > ekiden.now() - interval '3 days'
  AND s.answer_id LIKE 'resp\_%' AND t.status IN ('CANCELLED', 'COMPLETED')
  AND NOT EXISTS (SELECT FROM ekiden.calls c
                  WHERE c.task_id = s.task_id AND c.attempt = s.attempt AND c.number = s.number
                    AND c.answer IS NOT NULL)
ORDER BY s.started_at LIMIT 100;

-- name: note_withdrawn
-- Notes that the provider of a call ($1 task, $2 attempt, $3 number) was told that nobody waits.
UPDATE ekiden.started_calls SET withdrawn_at = ekiden.now()
WHERE task_id = $1 AND attempt = $2 AND number = $3;

-- name: next_started_call
-- The oldest call of an earlier attempt that asked the same of the same provider and whose answer
-- never came here, unless it was withdrawn; $7 are the ids that were tried already.
SELECT s.attempt, s.number, s.model, s.answer_id, ekiden.now() - s.started_at AS age
FROM ekiden.started_calls s
WHERE s.session_id = $1 AND s.task_id = $2 AND s.attempt < $3 AND s.kind = $4
  AND s.request_hash = $5 AND s.provider = $6 AND s.answer_id <> ALL ($7::text[])
  AND s.withdrawn_at IS NULL
  AND NOT EXISTS (SELECT FROM ekiden.calls c
                  WHERE c.task_id = s.task_id AND c.attempt = s.attempt AND c.number = s.number
                    AND c.answer IS NOT NULL)
ORDER BY s.attempt, s.number LIMIT 1;

-- The ledger.

-- name: append_calls
-- Appends calls as they came back, many at once. Paid is paid: no fence. One that is there already
-- was sent before, or its answer fetched.
INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model,
                          request_hash, request, answer, content_type, http_status, outcome, error,
                          input_tokens, output_tokens, cost_usd, started_at, finished_at,
                          request_id, first_token, price_version)
SELECT c.session_id, c.task_id, c.attempt, c.number, c.kind, c.provider, c.model, c.request_hash,
       c.request, c.answer, c.content_type, c.http_status, c.outcome, c.error, c.input_tokens,
       c.output_tokens, c.cost_usd, ekiden.now() - c.took, ekiden.now(), c.request_id,
       c.first_token, c.price_version
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[],
            $8::bytea[], $9::bytea[], $10::bytea[], $11::text[], $12::int[], $13::text[],
            $14::text[], $15::int[], $16::int[], $17::numeric[], $18::interval[], $19::text[],
            $20::interval[], $21::text[])
     AS c(session_id, task_id, attempt, number, kind, provider, model, request_hash, request,
          answer, content_type, http_status, outcome, error, input_tokens, output_tokens, cost_usd,
          took, request_id, first_token, price_version)
ON CONFLICT (task_id, attempt, number, (answer IS NULL)) DO NOTHING;

-- name: are_payable
-- Whether attempts still hold their tasks, so that each may begin a call, and whether what it may cost
-- is to be reserved; in the order asked. What is left is the moment between this look and the call, in
-- which a worker that lives may be given up, or a first budget set.
SELECT coalesce(t.attempt = asked.attempt AND t.status = 'RUNNING', false) AS held,
       EXISTS (SELECT FROM ekiden.budgets b WHERE b.session_id = t.session_id) AS budgeted
FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS asked(task_id, attempt, position)
LEFT JOIN ekiden.api_tasks t ON t.id = asked.task_id
ORDER BY asked.position;

-- name: settle_calls
-- What became of answers once they were read: tokens, cost and what they cite, or why they are of no
-- use.
UPDATE ekiden.calls c
SET outcome = s.outcome, error = s.error, input_tokens = s.input_tokens,
    output_tokens = s.output_tokens, cost_usd = s.cost_usd, price_version = s.price_version,
    finish_reason = s.finish_reason, citations = s.citations::json
FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::text[], $6::text[], $7::int[],
            $8::int[], $9::numeric[], $10::text[], $11::text[], $12::text[])
     AS s(session_id, task_id, attempt, number, outcome, error, input_tokens, output_tokens,
          cost_usd, price_version, finish_reason, citations)
WHERE c.session_id = s.session_id AND c.task_id = s.task_id AND c.attempt = s.attempt
  AND c.number = s.number AND c.outcome = 'ANSWERED';

-- name: next_paid_answer
-- The oldest usable answer that earlier attempts have to this request: taken before anything is
-- paid. $6 are the ids that this attempt has taken already.
SELECT id, attempt, number, provider, model, answer, content_type, http_status,
       input_tokens IS NULL AND output_tokens IS NULL AND cost_usd IS NULL AS unread
FROM ekiden.calls
WHERE session_id = $1 AND task_id = $2 AND attempt < $3 AND kind = $4 AND request_hash = $5
  AND outcome = 'ANSWERED' AND id <> ALL ($6::bigint[])
ORDER BY id LIMIT 1;

-- name: useless_answers
-- What earlier attempts were answered to this request that was of no use, newest first: the model may
-- have been shown it again, and that answer was paid as well. Not those of a size that would fill the
-- memory: what came after them is asked anew.
SELECT id, attempt, number, provider, model, answer, content_type, http_status, false AS unread
FROM ekiden.calls
WHERE session_id = $1 AND task_id = $2 AND attempt < $3 AND kind = $4 AND request_hash = $5
  AND outcome = 'INVALID' AND octet_length(answer) <= 4000000
ORDER BY id DESC LIMIT 10;

-- A session as one file: everything it is made of, and how that comes into another database.
-- JSON columns travel as text, so that what is stored there is what was stored here.

-- name: recorded_session
-- The session itself. What a fork shares travels with it, so it has no parent where it arrives.
SELECT id::text, status, phase, step, generation, open_tasks, title, input::text, auto_steps,
       auto_phases, max_retries, retry_delay::text, timeout::text, error::text, created_at::text,
       updated_at::text, completed_at::text, created_by, gates::text, models::text, kept::text,
       stop::text, failed_items, tolerated_items, waiting_since::text, waited::text
FROM ekiden.sessions WHERE id = $1;

-- name: recorded_flow
-- The version of the flow it runs.
SELECT f.name, f.version, f.title, f.phases::text, f.input_schema::text, f.output_schemas::text
FROM ekiden.flows f JOIN ekiden.sessions s ON s.flow_id = f.id WHERE s.id = $1;

-- name: recorded_workers
-- The workers that ran attempts of it.
SELECT DISTINCT w.id, w.host, w.pid, w.software, w.model, w.capacity, w.started_at::text,
       w.seen_at::text
FROM ekiden.api_tasks t JOIN ekiden.attempts a ON a.task_id = t.id
JOIN ekiden.workers w ON w.id = a.worker_id
WHERE t.session_id = $1 ORDER BY w.id;

-- name: recorded_runs
-- The generations of its phases.
SELECT phase, generation, started_at::text, think_from, execute_from, note, previous, model,
       variables::text
FROM ekiden.phase_runs
WHERE session_id = $1 ORDER BY started_at, phase, generation;

-- name: recorded_tasks
-- Every task.
SELECT id, phase, generation, step, item, status, attempt, budget_from, available_at::text,
       worker_id, request::text, delivered::text, result::text, reads::text, error::text,
       created_at::text, started_at::text, completed_at::text, tolerated
FROM ekiden.api_tasks WHERE session_id = $1 ORDER BY id;

-- name: recorded_attempts
-- Every attempt that ended, with what it logged.
SELECT a.task_id, a.number, a.worker_id, a.outcome, a.error::text, a.started_at::text,
       a.finished_at::text, a.retry_at::text, l.lines::text AS log
FROM ekiden.api_tasks t JOIN ekiden.attempts a ON a.task_id = t.id
LEFT JOIN ekiden.attempt_logs l ON l.task_id = a.task_id AND l.attempt = a.number
WHERE t.session_id = $1 ORDER BY a.task_id, a.number;

-- name: recorded_calls
-- Every call, with its bytes.
SELECT id, task_id, attempt, number, kind, provider, model, encode(request_hash, 'hex') AS
       request_hash, request, answer, content_type, http_status, outcome, error, input_tokens,
       output_tokens, cost_usd::text, started_at::text, finished_at::text, request_id,
       first_token::text, price_version, finish_reason, citations::text
FROM ekiden.calls WHERE session_id = $1 ORDER BY id;

-- name: recorded_revisions
-- Every version of its outputs.
SELECT r.id, r.phase, r.generation, r.number, r.author,
       CASE WHEN r.fork_of IS NULL THEN r.task_id END AS task_id,
       CASE WHEN r.fork_of IS NULL THEN r.output ELSE coalesce(r.output, t.result) END::text AS output,
       r.created_at::text, r.approved_at::text, r.approved_by, r.complaint, r.comment
FROM ekiden.revisions r LEFT JOIN ekiden.api_tasks t ON t.id = r.task_id
WHERE r.session_id = $1 ORDER BY r.id;

-- name: recorded_reviews
-- Every decision of a person.
SELECT phase, verb, revision_id, actor, comment, created_at::text, passes, generation, step,
       waited::text
FROM ekiden.reviews WHERE session_id = $1 ORDER BY id;

-- name: recorded_events
-- Its history.
SELECT type, phase, step, task_id, data::text, created_at::text
FROM ekiden.events WHERE session_id = $1 ORDER BY id;

-- name: recorded_drafts
-- Its drafts.
SELECT generation, number, title, body::text, sources::text, created_at::text, status, change,
       changed_by, changed_at::text
FROM ekiden.drafts WHERE session_id = $1 ORDER BY generation, number;

-- name: recorded_budgets
-- Its budgets.
SELECT phase, max_cost_usd::text, max_tokens FROM ekiden.budgets WHERE session_id = $1 ORDER BY phase;

-- name: new_ids
-- As many new ids of a table ($1) as are asked for.
SELECT nextval(pg_get_serial_sequence($1, 'id')) AS id FROM generate_series(1, $2::int);

-- name: import_flow
-- Makes the flow's version known, if it is not: no newer than those that workers have registered.
WITH made AS (
    INSERT INTO ekiden.flows (name, version, title, phases, input_schema, output_schemas,
                              registered_at)
    SELECT f.name, f.version, f.title, f.phases::jsonb, f.input_schema::jsonb,
           f.output_schemas::jsonb, '-infinity'
    FROM json_to_recordset($1::json)
         AS f(name text, version text, title text, phases text, input_schema text,
              output_schemas text)
    ON CONFLICT (name, version) DO NOTHING
    RETURNING id
)
SELECT id FROM made
UNION ALL
SELECT k.id FROM ekiden.flows k
JOIN json_to_recordset($1::json) AS f(name text, version text) USING (name, version);

-- name: import_session
-- The session; no row when it is here already.
INSERT INTO ekiden.sessions (id, flow_id, status, phase, step, generation, open_tasks, title, input,
                             auto_steps, auto_phases, max_retries, retry_delay, timeout, error,
                             created_at, updated_at, completed_at, created_by, gates, models, kept,
                             stop, failed_items, tolerated_items, waiting_since, waited)
SELECT s.id, $2, s.status, s.phase, s.step, s.generation, s.open_tasks, s.title, s.input::json,
       s.auto_steps, s.auto_phases, s.max_retries, s.retry_delay, s.timeout, s.error::json,
       s.created_at, s.updated_at, s.completed_at, s.created_by, s.gates::jsonb, s.models::jsonb,
       s.kept::smallint[], s.stop::json, s.failed_items, s.tolerated_items, s.waiting_since, s.waited
FROM json_to_recordset($1::json)
     AS s(id uuid, status text, phase smallint, step text, generation int, open_tasks int,
          title text, input text, auto_steps boolean, auto_phases boolean, max_retries smallint,
          retry_delay interval, timeout interval, error text, created_at timestamptz,
          updated_at timestamptz, completed_at timestamptz, created_by text, gates text,
          models text, kept text, stop text, failed_items int, tolerated_items int,
          waiting_since timestamptz, waited interval)
ON CONFLICT DO NOTHING RETURNING id::text;

-- name: import_workers
-- The workers, as ones that have gone.
INSERT INTO ekiden.workers (id, host, pid, software, model, flow_ids, capacity, state, started_at,
                            seen_at, lease_until)
OVERRIDING SYSTEM VALUE
SELECT w.id, w.host, w.pid, w.software, w.model, '{}', w.capacity, 'STOPPED', w.started_at,
       w.seen_at, w.seen_at
FROM json_to_recordset($1::json)
     AS w(id bigint, host text, pid int, software text, model text, capacity int,
          started_at timestamptz, seen_at timestamptz);

-- name: import_runs
-- The generations of its phases.
INSERT INTO ekiden.phase_runs (session_id, phase, generation, started_at, think_from, execute_from,
                               note, previous, model, variables)
SELECT $2, r.phase, r.generation, r.started_at, r.think_from, r.execute_from, r.note, r.previous,
       r.model, r.variables::jsonb
FROM json_to_recordset($1::json)
     AS r(phase smallint, generation int, started_at timestamptz, think_from int, execute_from int,
          note text, previous bigint, model text, variables text);

-- name: import_tasks
-- The tasks. What was queued is held: nothing runs here before a person resumes the session.
INSERT INTO ekiden.api_tasks (id, session_id, flow_id, phase, generation, step, item, status,
                              awaiting, attempt, budget_from, available_at, worker_id, request,
                              delivered, result, reads, error, created_at, started_at, completed_at,
                              tolerated)
SELECT t.id, $2, $3, t.phase, t.generation, t.step, t.item, t.status, t.status = 'QUEUED', t.attempt,
       t.budget_from, t.available_at, t.worker_id, t.request::json, t.delivered::json,
       t.result::json, t.reads::smallint[], t.error::json, t.created_at, t.started_at,
       t.completed_at, t.tolerated
FROM json_to_recordset($1::json)
     AS t(id bigint, phase smallint, generation int, step text, item int, status text, attempt int,
          budget_from int, available_at timestamptz, worker_id bigint, request text, delivered text,
          result text, reads text, error text, created_at timestamptz, started_at timestamptz,
          completed_at timestamptz, tolerated boolean);

-- name: import_attempts
-- The attempts, and what they logged.
WITH given AS MATERIALIZED (
    SELECT a.* FROM json_to_recordset($1::json)
        AS a(task_id bigint, number int, worker_id bigint, outcome text, error text,
             started_at timestamptz, finished_at timestamptz, retry_at timestamptz, log text)
), logged AS (
    INSERT INTO ekiden.attempt_logs (session_id, task_id, attempt, lines)
    SELECT $2::uuid, task_id, number, log::json FROM given WHERE log IS NOT NULL
)
INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at, finished_at,
                             retry_at)
SELECT task_id, number, worker_id, outcome, error::json, started_at, finished_at, retry_at
FROM given;

-- name: import_calls
-- The ledger, its bytes as base64.
INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model, request_hash,
                          request, answer, content_type, http_status, outcome, error, input_tokens,
                          output_tokens, cost_usd, started_at, finished_at, request_id, first_token,
                          price_version, finish_reason, citations)
SELECT $2, c.task_id, c.attempt, c.number, c.kind, c.provider, c.model,
       decode(c.request_hash, 'hex'), decode(c.request, 'base64'), decode(c.answer, 'base64'),
       c.content_type, c.http_status, c.outcome, c.error, c.input_tokens, c.output_tokens,
       c.cost_usd, c.started_at, c.finished_at, c.request_id, c.first_token, c.price_version,
       c.finish_reason, c.citations::json
FROM json_to_recordset($1::json)
     AS c(id bigint, task_id bigint, attempt int, number int, kind text, provider text, model text,
          request_hash text, request text, answer text, content_type text, http_status int,
          outcome text, error text, input_tokens int, output_tokens int, cost_usd numeric,
          started_at timestamptz, finished_at timestamptz, request_id text, first_token interval,
          price_version text, finish_reason text, citations text)
ORDER BY c.id;

-- name: import_revisions
-- The versions of its outputs.
INSERT INTO ekiden.revisions (id, session_id, phase, generation, number, author, task_id, output,
                              created_at, approved_at, approved_by, complaint, comment)
OVERRIDING SYSTEM VALUE
SELECT r.id, $2, r.phase, r.generation, r.number, r.author, r.task_id, r.output::json, r.created_at,
       r.approved_at, r.approved_by, r.complaint, r.comment
FROM json_to_recordset($1::json)
     AS r(id bigint, phase smallint, generation int, number int, author text, task_id bigint,
          output text, created_at timestamptz, approved_at timestamptz, approved_by text,
          complaint text, comment text);

-- name: import_reviews
-- The decisions.
INSERT INTO ekiden.reviews (session_id, phase, verb, revision_id, actor, comment, created_at, passes,
                            generation, step, waited)
SELECT $2, r.phase, r.verb, r.revision_id, r.actor, r.comment, r.created_at, r.passes, r.generation,
       r.step, r.waited
FROM json_to_recordset($1::json)
     AS r(phase smallint, verb text, revision_id bigint, actor text, comment text,
          created_at timestamptz, passes boolean, generation int, step text, waited interval);

-- name: import_events
-- The history, in its order.
INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data, created_at)
SELECT $2, e.type, e.phase, e.step, e.task_id, e.data::json, e.created_at
FROM ROWS FROM (json_to_recordset($1::json)
     AS (type text, phase smallint, step text, task_id bigint, data text, created_at timestamptz))
     WITH ORDINALITY AS e(type, phase, step, task_id, data, created_at, place)
ORDER BY e.place;

-- name: import_drafts
-- The drafts.
INSERT INTO ekiden.drafts (session_id, generation, number, title, body, sources, created_at, status,
                           change, changed_by, changed_at)
SELECT $2, d.generation, d.number, d.title, d.body::json, d.sources::json, d.created_at, d.status,
       d.change, d.changed_by, d.changed_at
FROM json_to_recordset($1::json)
     AS d(generation int, number int, title text, body text, sources text, created_at timestamptz,
          status text, change text, changed_by text, changed_at timestamptz);

-- name: import_budgets
-- The budgets.
INSERT INTO ekiden.budgets (session_id, phase, max_cost_usd, max_tokens)
SELECT $2, b.phase, b.max_cost_usd, b.max_tokens
FROM json_to_recordset($1::json) AS b(phase smallint, max_cost_usd numeric, max_tokens bigint);

-- name: import_no_errands
-- Its history is no news here: nobody is told of it, and no deadline of its gate runs.
DELETE FROM ekiden.errands WHERE session_id = $1;

-- Forks: a new session that goes on from what another one has approved.

-- name: keep_parent
-- Takes the lock of a session that is to be forked in the same transaction, beside others who fork it:
-- prune leaves it alone, and the fork's own statement sees what a decision committed while we waited.
SELECT FROM ekiden.sessions WHERE id = $1 FOR KEY SHARE;

-- name: fork_session
-- A new session that shares the approved outputs of another one's phases up to $2, as far as they hold,
-- and begins with what follows. Nothing is copied but what a person wrote; prune keeps the parent as
-- long. A second call with the same idempotency key ($6) changes nothing, and says whether the session
-- that the key stands for is the same fork.
WITH parent AS (
    SELECT s.id, s.flow_id, s.title, s.input::text, s.auto_steps, s.auto_phases, s.max_retries,
           s.retry_delay, s.timeout, s.gates, s.models, s.status, s.phase, s.kept
    FROM ekiden.sessions s WHERE s.id = $1
), shared AS MATERIALIZED (
    SELECT DISTINCT ON (r.phase) r.id, r.phase, r.author, r.task_id, r.output, r.comment
    FROM ekiden.revisions r JOIN parent p ON p.id = r.session_id
    WHERE r.phase <= $2 AND r.approved_at IS NOT NULL
      AND (p.status = 'COMPLETED' OR r.phase < p.phase OR r.phase = ANY (p.kept))
    ORDER BY r.phase, r.generation DESC, r.number DESC
), made AS (
    INSERT INTO ekiden.sessions (flow_id, title, input, auto_steps, auto_phases, max_retries,
                                 retry_delay, timeout, gates, models, open_tasks, phase,
                                 created_by, parent_id, parent_phase, idempotency_key)
    SELECT flow_id, coalesce($3, title), input::json, auto_steps, auto_phases, max_retries,
           retry_delay, timeout, gates, models, 1, $2 + 1, $4, id, $2, $6
    FROM parent WHERE (SELECT count(*) FROM shared) = $2
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id, flow_id, phase
), outputs AS (
    INSERT INTO ekiden.revisions (session_id, phase, generation, number, author, task_id, output,
                                  comment, approved_at, approved_by, fork_of)
    SELECT m.id, r.phase, 1, 1, r.author, r.task_id, r.output, r.comment, ekiden.now(), 'fork', r.id
    FROM made m, shared r
), runs AS (
    INSERT INTO ekiden.phase_runs (session_id, phase, generation)
    SELECT m.id, n, 1 FROM made m, generate_series(1, m.phase) AS n
), task AS (
    INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, generation, queued, awaiting)
    SELECT id, flow_id, phase, 'THINK', 1, $5, NOT $5 FROM made
), limits AS (
    INSERT INTO ekiden.budgets (session_id, phase, max_cost_usd, max_tokens)
    SELECT m.id, b.phase, b.max_cost_usd, b.max_tokens
    FROM made m JOIN ekiden.budgets b ON b.session_id = $1
), told AS (
    INSERT INTO ekiden.events (session_id, type, data)
    SELECT id, 'session_created', json_build_object('forkOf', $1::text, 'phase', $2::int) FROM made
)
SELECT id::text, true AS created, true AS same FROM made
UNION ALL
SELECT id::text, false, (parent_id, parent_phase) IS NOT DISTINCT FROM ($1, $2)
FROM ekiden.sessions WHERE idempotency_key = $6 AND NOT EXISTS (SELECT FROM made)
LIMIT 1;

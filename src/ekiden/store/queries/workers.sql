-- Workers, their leases, and the rescue of what dead ones held.

-- name: register_flow
-- Makes a flow known; the same version again only becomes the newest.
INSERT INTO ekiden.flows (name, version, title, phases, input_schema, output_schemas)
VALUES ($1, $2, $3, $4::jsonb, $5::jsonb, $6::jsonb)
ON CONFLICT (name, version) DO UPDATE
SET registered_at = ekiden.now(), title = excluded.title, phases = excluded.phases,
    input_schema = excluded.input_schema, output_schemas = excluded.output_schemas
RETURNING id;

-- name: list_flows
-- The newest version of each flow.
SELECT DISTINCT ON (f.name) f.id, f.name, f.version, f.title, f.phases::text,
       f.input_schema::text, f.registered_at,
       EXISTS (SELECT FROM ekiden.workers w WHERE w.state = 'ALIVE'
               AND w.lease_until > ekiden.now() AND f.id = ANY (w.flow_ids)) AS has_worker
FROM ekiden.flows f ORDER BY f.name, f.registered_at DESC, f.id DESC;

-- name: register_worker
-- A worker says hello; its id is new at every start.
INSERT INTO ekiden.workers (host, pid, software, model, flow_ids, capacity, lease_until, providers)
VALUES ($1, $2, $3, $4, $5, $6, ekiden.now() + $7, $8)
RETURNING id;

-- name: who_has_model
-- For a task ($1) whose worker lacks the provider ($2) that people chose: whether a living worker that
-- knows its flow has it, and for how long the task was handed on for that reason alone.
SELECT EXISTS (SELECT FROM ekiden.workers w
               WHERE w.state = 'ALIVE' AND w.lease_until > ekiden.now()
                 AND t.flow_id = ANY (w.flow_ids) AND $2 = ANY (w.providers)) AS has_worker,
       coalesce(ekiden.now() - (
           SELECT min(a.started_at) FROM ekiden.attempts a
           WHERE a.task_id = t.id AND a.number > coalesce((
               SELECT max(o.number) FROM ekiden.attempts o
               WHERE o.task_id = t.id
                 AND coalesce(o.error ->> 'kind', '') NOT IN ('ModelElsewhere', 'ModelNowhere')), 0)
       ), interval '0') AS waited
FROM ekiden.api_tasks t WHERE t.id = $1;

-- name: take_life_sign
-- The advisory lock that stands for a living worker. PostgreSQL frees it the moment the
-- connection dies, which is how peers learn of a death before the lease ends. Rings for them:
-- someone must watch it.
WITH held AS MATERIALIZED (
    SELECT pg_try_advisory_lock(hashtext('ekiden'), ($1::bigint % 2147483647)::int) AS held)
UPDATE ekiden.workers SET life_sign = held.held FROM held WHERE id = $1
RETURNING life_sign, pg_notify('life_sign', id::text);

-- name: wait_for_death
-- Returns when the life sign of worker $1 is gone, or fails after the connection's lock_timeout:
-- the wait holds a snapshot, and that holds back vacuum.
SELECT pg_advisory_lock_shared(hashtext('ekiden'), ($1::bigint % 2147483647)::int);

-- name: let_go_of_life_sign
-- Lets go of what wait_for_death got.
SELECT pg_advisory_unlock_shared(hashtext('ekiden'), ($1::bigint % 2147483647)::int);

-- name: heartbeat
-- A worker's sign of life, and what it should know, in one transaction: it is all that an idle
-- worker asks. $1 worker, $2 lease, $3 busy, $4 state, $5 its flows, $6 and $7 the tasks it runs and
-- their attempts. Rings the worker's own bell, which proves that its listener hears. Nothing here may
-- grow with what there is: a beat that takes too long costs the lease.
--   alive     false: it was declared lost meanwhile and must drop everything
--   due       a task waits that nobody claimed: its bell was lost
--   deaths    a peer's lease is over or its life sign is gone
--   neighbour the peer whose life sign this worker waits on: the next older, else the newest: a ring
--   cancelled those of its tasks that a person cancelled. Not those a peer took over: their calls
--             are paid for, so their answers shall still reach the ledger
WITH beaten AS (
    UPDATE ekiden.workers
    SET seen_at = ekiden.now(), lease_until = ekiden.now() + $2, busy = $3, state = $4
    WHERE id = $1 AND state IN ('ALIVE', 'DRAINING')
    RETURNING pg_notify('ekiden_probe', id::text)
)
SELECT EXISTS (SELECT FROM beaten) AS alive,
       EXISTS (SELECT FROM ekiden.api_tasks
               WHERE queued AND available_at <= ekiden.now() AND flow_id = ANY ($5::int[])) AS due,
       EXISTS (SELECT FROM ekiden.workers w
               WHERE w.state IN ('ALIVE', 'DRAINING') AND w.id <> $1
                 AND (w.lease_until <= ekiden.now()
                      OR w.life_sign AND NOT EXISTS (
                           SELECT FROM pg_locks k
                           WHERE k.locktype = 'advisory' AND k.granted AND k.mode = 'ExclusiveLock'
                             AND k.database = (SELECT oid FROM pg_database
                                               WHERE datname = current_database())
                             AND k.classid = (hashtext('ekiden')::bigint & 4294967295)::oid
                             AND k.objid = (w.id % 2147483647)::oid))) AS deaths,
       (SELECT w.id FROM ekiden.workers w
        WHERE w.state IN ('ALIVE', 'DRAINING') AND w.life_sign AND w.id <> $1
        ORDER BY w.id > $1, w.id DESC LIMIT 1) AS neighbour,
       ARRAY(SELECT r.id FROM unnest($6::bigint[], $7::int[]) AS r(id, attempt)
             JOIN ekiden.api_tasks t ON t.id = r.id
             WHERE t.attempt = r.attempt AND t.status = 'CANCELLED') AS cancelled;

-- name: stop_worker
-- A worker says goodbye. It holds no task any more.
UPDATE ekiden.workers SET state = 'STOPPED', busy = 0, life_sign = false, seen_at = ekiden.now()
WHERE id = $1;

-- name: list_workers
-- Workers present, and those that left within the last day.
SELECT id, host, pid, software, model, busy, capacity, started_at, seen_at,
       CASE WHEN state IN ('ALIVE', 'DRAINING') AND lease_until <= ekiden.now() THEN 'LOST'
            ELSE state END AS state
FROM ekiden.workers
WHERE state IN ('ALIVE', 'DRAINING') OR seen_at > ekiden.now() - interval '1 day'
ORDER BY id;

-- name: dead_workers
-- Workers whose lease is over (certain), or whose life sign is gone (suspected: a worker that is
-- just connecting again has none either, so the caller looks twice before it believes it). And those
-- that are gone and hold a task all the same: a claim or a commit of theirs that was on its way when
-- they were given up. That looks into every session that can have one; $1: LONGEST_AFTER_FAILURE.
SELECT w.id, w.lease_until <= ekiden.now() AS certain
FROM ekiden.workers w
WHERE w.state IN ('ALIVE', 'DRAINING')
  AND (w.lease_until <= ekiden.now()
       OR w.life_sign AND NOT EXISTS (
            SELECT FROM pg_locks k
            WHERE k.locktype = 'advisory' AND k.granted AND k.mode = 'ExclusiveLock'
              AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND k.classid = (hashtext('ekiden')::bigint & 4294967295)::oid
              AND k.objid = (w.id % 2147483647)::oid))
UNION
SELECT w.id, true
FROM ekiden.sessions s
CROSS JOIN LATERAL (
    SELECT t.worker_id FROM ekiden.api_tasks t WHERE t.session_id = s.id AND t.status = 'RUNNING'
    OFFSET 0  -- session by session: with statistics of an idle hour it would be a scan of all tasks
) AS t
JOIN ekiden.workers w ON w.id = t.worker_id AND w.state IN ('STOPPED', 'LOST')
WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED')
  AND (s.status <> 'FAILED' OR s.updated_at > (SELECT ekiden.now() - $1::interval));

-- name: rescue_tasks
-- Declares these workers lost and takes over what they held. Each rescue is a new attempt; a task
-- that took $2 workers with it since it last FAILED is parked as FAILED, with its session. Its budget
-- is no measure of that: a worker that gives it back in between moves it. $3: LONGEST_AFTER_FAILURE.
-- Lock order: sessions by id, then their tasks; the worker rows only after, and they stay.
WITH locked AS MATERIALIZED (
    -- Its status as it is once the lock is ours: someone may have paused it while we waited.
    SELECT s.id, s.status FROM ekiden.sessions s
    WHERE s.status IN ('RUNNING', 'PAUSED', 'FAILED')
      AND (s.status <> 'FAILED'
           OR s.updated_at > (SELECT min(seen_at) - $3::interval FROM ekiden.workers
                              WHERE id = ANY ($1::bigint[])))
      AND EXISTS (SELECT FROM ekiden.api_tasks t WHERE t.session_id = s.id
                  AND t.status = 'RUNNING' AND t.worker_id = ANY ($1::bigint[])
                  OFFSET 0)  -- session by session, as above
    ORDER BY s.id FOR UPDATE
), orphans AS MATERIALIZED (
    SELECT t.id, l.status AS session_status,
           1 + (SELECT count(*) FROM ekiden.attempts a
                WHERE a.task_id = t.id AND a.outcome = 'LOST'
                  AND a.number > (SELECT coalesce(max(f.number), 0) FROM ekiden.attempts f
                                  WHERE f.task_id = t.id
                                    AND (f.outcome = 'FAILED'
                                         OR f.outcome = 'LOST' AND f.retry_at IS NULL)))
             >= $2 AS poison
    FROM locked l
    CROSS JOIN LATERAL (
        SELECT t.id FROM ekiden.api_tasks t WHERE t.session_id = l.id
        AND t.status = 'RUNNING' AND t.worker_id = ANY ($1::bigint[]) OFFSET 0) AS t
), rescued AS (
    UPDATE ekiden.api_tasks t
    SET status = CASE WHEN o.poison THEN 'FAILED' ELSE 'QUEUED' END,
        queued = NOT o.poison AND o.session_status <> 'PAUSED',
        awaiting = NOT o.poison AND o.session_status = 'PAUSED',
        available_at = ekiden.now(),
        error = CASE WHEN o.poison THEN json_build_object(
            'kind', 'Poison', 'retryable', false,
            'message', 'Its worker died each of the last ' || $2 || ' times. Parked.') END
    FROM orphans o
    WHERE t.id = ANY (ARRAY(SELECT id FROM orphans)) AND t.id = o.id
      AND t.status = 'RUNNING' AND t.worker_id = ANY ($1::bigint[])
    RETURNING t.*
), history AS (
    INSERT INTO ekiden.attempts (task_id, number, worker_id, outcome, error, started_at,
                                 finished_at, retry_at)
    SELECT id, attempt, worker_id, 'LOST', error, started_at, ekiden.now(),
           CASE WHEN status = 'QUEUED' THEN available_at END
    FROM rescued
), stopped AS (
    UPDATE ekiden.sessions s
    SET status = 'FAILED', updated_at = ekiden.now(), stop = NULL, waiting_since = NULL,
        waited = s.waited + coalesce(ekiden.now() - s.waiting_since, interval '0'),
        error = json_build_object('message', r.error ->> 'message', 'kind', 'Poison',
                                  'phase', r.phase, 'step', r.step, 'item', r.item,
                                  'attempt', r.attempt, 'taskId', r.id, 'retryAt', NULL)
    FROM rescued r WHERE r.status = 'FAILED' AND s.id = r.session_id
), told AS (
    INSERT INTO ekiden.events (session_id, type, phase, step, task_id, data)
    SELECT session_id, 'task_rescued', phase, step, id,
           json_build_object('attempt', attempt, 'workerId', worker_id)
    FROM rescued WHERE status = 'QUEUED'
    UNION ALL
    SELECT r.session_id, 'task_failed', r.phase, r.step, r.id,
           json_build_object('attempt', r.attempt, 'workerId', r.worker_id,
                             'first', o.session_status <> 'FAILED'
                                      AND r.id = min(r.id) OVER (PARTITION BY r.session_id))
    FROM rescued r JOIN orphans o ON o.id = r.id WHERE r.status = 'FAILED'
), buried AS (
    UPDATE ekiden.workers SET state = 'LOST', life_sign = false, busy = 0
    WHERE id = ANY ($1::bigint[]) AND state IN ('ALIVE', 'DRAINING')
)
SELECT id, session_id::text, attempt, status FROM rescued;

-- name: ring
-- Rings the bell of the queue, for whoever is idle.
SELECT pg_notify('task_queued', '');

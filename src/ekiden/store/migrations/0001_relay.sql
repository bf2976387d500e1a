-- The relay: flows, sessions and the tasks that hand the sash on.
--
--   flows ──< sessions ──< phase_runs ──< revisions ──< reviews
--                │
--                ├──< api_tasks ──< attempts
--                │        └──────< calls          (the ledger)
--                ├──< events                      (what people and pages follow)
--                └──< drafts
--   workers: who claims; a lease on each row holds all of that worker's tasks.
--
-- Lock order, everywhere: sessions by id, then their tasks. A statement that changes a task takes
-- the row lock of its session first; so the events of one session get their ids in commit order,
-- and "id greater than the last one seen" misses none.
--
-- What shapes the physical side was measured first: no index, and no partial predicate, on a column
-- that completing a task changes (that keeps completions HOT), room left in the pages for the new
-- version, the lease on one row a worker instead of one a task.

CREATE FUNCTION ekiden.now() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('ekiden.fake_now', true), '')::timestamptz,
                    statement_timestamp());
COMMENT ON FUNCTION ekiden.now() IS
    'The only clock. SET ekiden.fake_now to test leases and due times without waiting.';

-- UUID version 7 (RFC 9562 §5.7): 48 bits of milliseconds, then random. PostgreSQL 18 has its own;
-- 15 to 17 do not.
CREATE FUNCTION ekiden.new_session_id() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid;

CREATE TABLE ekiden.flows (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL,
    version       text NOT NULL,       -- hash of phases, steps and schemas
    title         text NOT NULL,
    phases        jsonb NOT NULL,      -- [{name, title, titles, steps: [...], fansOut}]
    input_schema  jsonb NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT ekiden.now(),
    UNIQUE (name, version)
);

CREATE TABLE ekiden.workers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host        text NOT NULL,
    pid         int NOT NULL,
    software    text NOT NULL,         -- version of Ekiden
    model       text,                  -- what answers its steps, as shown to people
    flow_ids    int[] NOT NULL,
    capacity    int NOT NULL,
    busy        int NOT NULL DEFAULT 0,
    state       text NOT NULL DEFAULT 'ALIVE',
    life_sign   boolean NOT NULL DEFAULT false,  -- holds the advisory lock (hashtext('ekiden'), id)
    started_at  timestamptz NOT NULL DEFAULT ekiden.now(),
    seen_at     timestamptz NOT NULL DEFAULT ekiden.now(),
    lease_until timestamptz NOT NULL,
    CONSTRAINT worker_state_is_known CHECK (state IN ('ALIVE', 'DRAINING', 'STOPPED', 'LOST'))
) WITH (fillfactor = 50);
CREATE INDEX workers_present ON ekiden.workers (id) WHERE state IN ('ALIVE', 'DRAINING');

CREATE TABLE ekiden.sessions (
    id              uuid PRIMARY KEY DEFAULT ekiden.new_session_id(),
    flow_id         int NOT NULL REFERENCES ekiden.flows,
    status          text NOT NULL DEFAULT 'RUNNING',
    phase           smallint NOT NULL DEFAULT 1,       -- the cursor
    step            text NOT NULL DEFAULT 'THINK',
    generation      int NOT NULL DEFAULT 1,            -- of the current phase
    open_tasks      int NOT NULL DEFAULT 0,            -- of the current step, not yet COMPLETED
    title           text NOT NULL,
    input           json NOT NULL,
    auto_steps      boolean NOT NULL,
    auto_phases     boolean NOT NULL,
    max_retries     smallint NOT NULL,
    retry_delay     interval NOT NULL,
    timeout         interval NOT NULL,
    error           json,                              -- why it is FAILED
    idempotency_key text UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT ekiden.now(),
    updated_at      timestamptz NOT NULL DEFAULT ekiden.now(),
    completed_at    timestamptz,
    CONSTRAINT session_status_is_known CHECK (status IN
        ('RUNNING', 'AWAITING_REVIEW', 'PAUSED', 'FAILED', 'COMPLETED', 'CANCELLED')),
    CONSTRAINT session_step_is_known CHECK (step IN ('THINK', 'EXECUTE', 'INTEGRATE')),
    CONSTRAINT session_open_tasks_fit_status CHECK (
        open_tasks >= 0 AND (status NOT IN ('AWAITING_REVIEW', 'COMPLETED') OR open_tasks = 0)),
    CONSTRAINT session_failure_has_a_reason CHECK (status <> 'FAILED' OR error IS NOT NULL),
    CONSTRAINT session_end_has_a_time CHECK (
        (status IN ('COMPLETED', 'CANCELLED')) = (completed_at IS NOT NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- Its predicate changes at gates and ends only, so hops stay HOT.
CREATE INDEX sessions_with_tasks ON ekiden.sessions (id) WHERE status IN ('RUNNING', 'PAUSED', 'FAILED');

CREATE TABLE ekiden.phase_runs (
    session_id uuid NOT NULL REFERENCES ekiden.sessions ON DELETE CASCADE,
    phase      smallint NOT NULL,
    generation int NOT NULL,
    started_at timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (session_id, phase, generation)
);

CREATE TABLE ekiden.api_tasks (
    id           bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    session_id   uuid NOT NULL,        -- no foreign key: the hot path pays for each check
    flow_id      int NOT NULL,
    phase        smallint NOT NULL,
    step         text NOT NULL,
    item         int NOT NULL DEFAULT 0,        -- position in the fan-out
    generation   int NOT NULL,
    status       text NOT NULL DEFAULT 'QUEUED',
    queued       boolean NOT NULL DEFAULT false,  -- may be claimed once available_at has come
    awaiting     boolean NOT NULL DEFAULT false,  -- held until a person starts it
    attempt      int NOT NULL DEFAULT 0,        -- the last one; counted at claim; the fencing token
    budget_from  int NOT NULL DEFAULT 0,        -- attempts up to here no longer count
    available_at timestamptz NOT NULL DEFAULT ekiden.now(),
    worker_id    bigint,
    request      json,                 -- the item, when the step fans out
    delivered    json,                 -- a result from outside, not yet checked
    result       json,
    reads        smallint[],           -- earlier phases whose output it used
    error        json,                 -- of the last attempt, when it failed
    created_at   timestamptz NOT NULL DEFAULT ekiden.now(),
    started_at   timestamptz,
    completed_at timestamptz,
    CONSTRAINT task_status_is_known CHECK (status IN
        ('QUEUED', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    CONSTRAINT task_step_is_known CHECK (step IN ('THINK', 'EXECUTE', 'INTEGRATE')),
    CONSTRAINT task_waits_only_while_queued CHECK (
        (status = 'QUEUED') = (queued OR awaiting) AND NOT (queued AND awaiting)),
    CONSTRAINT task_completes_with_a_result CHECK ((status = 'COMPLETED') = (result IS NOT NULL)),
    CONSTRAINT task_runs_on_a_worker CHECK (
        status <> 'RUNNING' OR (worker_id IS NOT NULL AND attempt > 0 AND started_at IS NOT NULL))
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
        autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX api_tasks_claimable ON ekiden.api_tasks (available_at, id) WHERE queued;
-- One task an item, whatever happens: the hand-off cannot insert a step twice.
CREATE UNIQUE INDEX api_tasks_of_session
    ON ekiden.api_tasks (session_id, phase, generation, step, item);

CREATE TABLE ekiden.attempts (
    task_id     bigint NOT NULL,
    number      int NOT NULL,
    worker_id   bigint NOT NULL,
    outcome     text NOT NULL,
    error       json,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    retry_at    timestamptz,           -- when the next one is due, if there is one
    PRIMARY KEY (task_id, number),
    CONSTRAINT attempt_outcome_is_known CHECK (outcome IN
        ('COMPLETED', 'RETRIED', 'FAILED', 'LOST', 'RELEASED', 'CANCELLED'))
);
COMMENT ON TABLE ekiden.attempts IS
    'Attempts that ended. The one that runs is the RUNNING row of api_tasks.';

-- The ledger. An answer is here, byte for byte, before anyone tries to understand it.
CREATE TABLE ekiden.calls (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id    uuid NOT NULL,
    task_id       bigint NOT NULL,
    attempt       int NOT NULL,
    number        int NOT NULL,        -- within the attempt, from 1
    kind          text NOT NULL,
    provider      text NOT NULL,
    model         text NOT NULL,
    request_hash  bytea NOT NULL,
    request       bytea NOT NULL,      -- JSON; bytea, for what a person typed may hold NUL too
    answer        bytea,               -- raw
    content_type  text,
    http_status   int,
    outcome       text NOT NULL,
    error         text,
    input_tokens  int,
    output_tokens int,
    cost_usd      numeric,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    CONSTRAINT call_kind_is_known CHECK (kind IN ('ask', 'search')),
    CONSTRAINT call_outcome_is_known CHECK (outcome IN ('ANSWERED', 'INVALID', 'FAILED')),
    CONSTRAINT call_answer_is_kept CHECK (outcome = 'FAILED' OR answer IS NOT NULL)
);
CREATE INDEX calls_of_session ON ekiden.calls (session_id, task_id);

CREATE TABLE ekiden.revisions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id  uuid NOT NULL,
    phase       smallint NOT NULL,
    generation  int NOT NULL,
    number      int NOT NULL,          -- 1 is the model's
    author      text NOT NULL,         -- 'model', or who edited
    task_id     bigint,                -- the INTEGRATE task whose result it is,
    output      json,                  -- or what a person wrote; a large value is stored once
    created_at  timestamptz NOT NULL DEFAULT ekiden.now(),
    approved_at timestamptz,
    UNIQUE (session_id, phase, generation, number),
    CONSTRAINT revision_has_one_origin CHECK ((task_id IS NULL) <> (output IS NULL))
);

CREATE TABLE ekiden.reviews (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id      uuid NOT NULL,
    phase           smallint NOT NULL,
    verb            text NOT NULL,
    revision_id     bigint REFERENCES ekiden.revisions,  -- what was seen
    actor           text NOT NULL,
    comment         text,
    idempotency_key text UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT ekiden.now(),
    CONSTRAINT review_verb_is_known CHECK (verb IN ('approve', 'edit', 'reject', 'rerun'))
);
CREATE INDEX reviews_of_session ON ekiden.reviews (session_id);

CREATE TABLE ekiden.events (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    session_id uuid NOT NULL,
    type       text NOT NULL,
    phase      smallint,
    step       text,
    task_id    bigint,
    data       json,
    created_at timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (session_id, id)
);

CREATE TABLE ekiden.drafts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES ekiden.sessions ON DELETE CASCADE,
    number     int NOT NULL,
    title      text NOT NULL,
    body       json NOT NULL,
    sources    json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT ekiden.now(),
    UNIQUE (session_id, number)
);

-- Doorbells. A NOTIFY is a hint: lost ones cost time, never work.
--
-- Two statement triggers are on the hot path, one query each. The bell of the queue is a row
-- trigger on purpose: there its WHEN is false and costs nothing, and PostgreSQL folds equal
-- notifications of one transaction into one.

CREATE FUNCTION ekiden.ring_task_queued() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('task_queued', '');
    RETURN NULL;
END $$;

CREATE FUNCTION ekiden.ring_task_completed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A COMPLETED row never changes again, so a COMPLETED row seen here has just become it.
    -- A payload of 8,000 bytes would abort the commit that stores the answer: large results stay
    -- out of it.
    PERFORM pg_notify('task_completed',
        CASE WHEN octet_length(result::text) <= 4000
             THEN json_build_object('taskId', id, 'sessionId', session_id, 'result', result)
             ELSE json_build_object('taskId', id, 'sessionId', session_id)
        END::text)
    FROM changed WHERE status = 'COMPLETED';
    RETURN NULL;
END $$;

CREATE FUNCTION ekiden.ring_session_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
BEGIN
    SELECT array_agg(DISTINCT session_id) INTO ids FROM changed;
    -- 200 ids of 36 characters and a comma stay under 8,000 bytes.
    FOR i IN 1 .. coalesce(cardinality(ids), 0) BY 200 LOOP
        PERFORM pg_notify('session_changed', array_to_string(ids[i : i + 199], ','));
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER ring_on_insert AFTER INSERT ON ekiden.api_tasks
    FOR EACH ROW WHEN (NEW.queued) EXECUTE FUNCTION ekiden.ring_task_queued();
CREATE TRIGGER ring_on_queued AFTER UPDATE ON ekiden.api_tasks
    FOR EACH ROW WHEN (NEW.queued) EXECUTE FUNCTION ekiden.ring_task_queued();
CREATE TRIGGER ring_on_completed AFTER UPDATE ON ekiden.api_tasks
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION ekiden.ring_task_completed();
CREATE TRIGGER ring_on_insert AFTER INSERT ON ekiden.events
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION ekiden.ring_session_changed();

-- What people decide at gates and between them, and what stops a session until they do.
--
--   sessions ──< phase_runs (generation: what began it, what it keeps of the one before)
--       │  └───< revisions  (who approved it, what a check had to say)
--       ├──< reviews        (every decision, with who took it)
--       ├──< budgets ──< reservations       (money that calls under way may still cost)
--       └──< errands ──< errand_attempts    (webhooks, reminders, deadlines: what is owed outside)
--   webhooks: whom to tell.

-- A session that was stopped by itself is PAUSED, and says why.
ALTER TABLE ekiden.sessions
    ADD created_by      text NOT NULL DEFAULT 'api',
    ADD parent_id       uuid,                        -- it was forked from this session,
    ADD parent_phase    smallint,                    -- and shares its outputs up to this phase
    ADD gates           jsonb NOT NULL DEFAULT '{}', -- policies over the flow's, by phase number
    ADD models          jsonb NOT NULL DEFAULT '{}', -- "provider:model" by place: "", "1", "1.THINK"
    ADD kept            smallint[] NOT NULL DEFAULT '{}',  -- after going back: phases that still hold
    ADD stop            json,        -- why it paused by itself: a budget, failed items
    ADD failed_items    int NOT NULL DEFAULT 0,      -- of the current fan-out, given up
    ADD tolerated_items int NOT NULL DEFAULT 0,      -- how many of them the flow goes on without
    ADD waiting_since   timestamptz,                 -- for a person
    ADD waited          interval NOT NULL DEFAULT '0',  -- for people, before waiting_since
    ADD CONSTRAINT session_stop_is_a_pause CHECK (stop IS NULL OR status IN ('PAUSED', 'CANCELLED')),
    ADD CONSTRAINT session_has_a_whole_parent CHECK ((parent_id IS NULL) = (parent_phase IS NULL));
UPDATE ekiden.sessions SET waiting_since = updated_at WHERE status = 'AWAITING_REVIEW';
ALTER TABLE ekiden.sessions ADD CONSTRAINT session_waits_at_a_gate_or_a_stop CHECK (
    (waiting_since IS NOT NULL)
    = (status = 'AWAITING_REVIEW' OR status = 'PAUSED' AND stop IS NOT NULL));
-- The reviewers' queue. Its column changes at gates only, so hops stay HOT.
CREATE INDEX sessions_waiting ON ekiden.sessions (waiting_since) WHERE waiting_since IS NOT NULL;
CREATE INDEX sessions_forked ON ekiden.sessions (parent_id) WHERE parent_id IS NOT NULL;

-- Apart from ``phases``, which is read at every look at a session.
ALTER TABLE ekiden.flows ADD output_schemas jsonb NOT NULL DEFAULT '[]';

ALTER TABLE ekiden.phase_runs
    ADD think_from   int,          -- the generation whose plan it goes on from, when it has none
    ADD execute_from int,          -- the same for the results of EXECUTE
    ADD note         text,         -- what a person wants to be different
    ADD previous     bigint,       -- the revision that is about
    ADD model        text,         -- "provider:model" for this run alone
    ADD variables    jsonb NOT NULL DEFAULT '{}';

-- A task that was given up while its siblings go on: FAILED, and not in anybody's way.
ALTER TABLE ekiden.api_tasks
    ADD tolerated boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT task_is_tolerated_once_failed CHECK (NOT tolerated OR status IN ('FAILED', 'CANCELLED'));

ALTER TABLE ekiden.revisions
    ADD complaint   text,          -- of the flow's own check; then a person must look
    ADD approved_by text,          -- who; 'flow' where no gate was
    ADD comment     text,          -- why it was edited
    ADD fork_of     bigint;        -- the revision of another session that it shares
UPDATE ekiden.revisions r
SET approved_by = coalesce((SELECT v.actor FROM ekiden.reviews v
                            WHERE v.revision_id = r.id AND v.verb = 'approve' LIMIT 1), 'flow')
WHERE r.approved_at IS NOT NULL;
ALTER TABLE ekiden.revisions
    ADD CONSTRAINT revision_is_approved_by_someone CHECK (
        (approved_at IS NULL) = (approved_by IS NULL));
CREATE INDEX revisions_shared ON ekiden.revisions (fork_of) WHERE fork_of IS NOT NULL;

-- Where several must approve, each approval is a review; one of them passes the gate.
ALTER TABLE ekiden.reviews
    ADD passes     boolean NOT NULL DEFAULT true,
    ADD generation int,            -- of the phase: the one decided on, or the one begun
    ADD step       text,           -- where a rerun begins
    ADD waited     interval,       -- how long the session had waited for it
    DROP CONSTRAINT review_verb_is_known,
    ADD CONSTRAINT review_verb_is_known CHECK (verb IN
        ('approve', 'edit', 'reject', 'rerun', 'accept', 'retry', 'budget'));

-- Drafts of a session that was taken up again stay beside the new ones.
ALTER TABLE ekiden.drafts
    ADD generation int NOT NULL DEFAULT 1,   -- of the last phase
    DROP CONSTRAINT drafts_session_id_number_key,
    ADD UNIQUE (session_id, generation, number);

CREATE TABLE ekiden.budgets (
    session_id   uuid NOT NULL REFERENCES ekiden.sessions ON DELETE CASCADE,
    phase        smallint NOT NULL,          -- 0 is the session as a whole
    max_cost_usd numeric,
    max_tokens   bigint,
    PRIMARY KEY (session_id, phase),
    CONSTRAINT budget_limits_something CHECK (max_cost_usd IS NOT NULL OR max_tokens IS NOT NULL),
    CONSTRAINT budget_is_not_negative CHECK (max_cost_usd >= 0 AND max_tokens >= 0)
);
COMMENT ON TABLE ekiden.budgets IS
    'Its row is also the lock under which calls are reserved: one after the other, whoever asks.';

CREATE TABLE ekiden.reservations (
    session_id uuid NOT NULL,
    task_id    bigint NOT NULL,
    attempt    int NOT NULL,
    number     int NOT NULL,                 -- calls.number
    phase      smallint NOT NULL,
    cost_usd   numeric,
    tokens     bigint NOT NULL,
    PRIMARY KEY (session_id, task_id, attempt, number)
);
COMMENT ON TABLE ekiden.reservations IS
    'What a call may cost at most. Counts until its row in calls says what it did cost, or its attempt ends.';

CREATE TABLE ekiden.webhooks (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url        text NOT NULL,
    secret     text NOT NULL,                -- whsec_…: signs what is sent, so it must be readable
    events     text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT ekiden.now(),
    stopped_at timestamptz
);

CREATE TABLE ekiden.errands (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,
    session_id   uuid NOT NULL,
    phase        smallint,
    generation   int,
    event        text NOT NULL,              -- what is told, or what the timer is about
    event_id     bigint,
    webhook_id   int REFERENCES ekiden.webhooks,
    status       text NOT NULL DEFAULT 'QUEUED',
    attempt      int NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT ekiden.now(),
    created_at   timestamptz NOT NULL DEFAULT ekiden.now(),
    finished_at  timestamptz,
    CONSTRAINT errand_kind_is_known CHECK (kind IN ('webhook', 'reminder', 'deadline')),
    CONSTRAINT errand_status_is_known CHECK (status IN ('QUEUED', 'DONE', 'FAILED', 'VOID')),
    CONSTRAINT errand_webhook_is_named CHECK ((kind = 'webhook') = (webhook_id IS NOT NULL)),
    CONSTRAINT errand_end_has_a_time CHECK ((status = 'QUEUED') = (finished_at IS NULL))
);
CREATE INDEX errands_due ON ekiden.errands (available_at, id) WHERE status = 'QUEUED';
CREATE INDEX errands_of_session ON ekiden.errands (session_id);

CREATE TABLE ekiden.errand_attempts (
    errand_id   bigint NOT NULL REFERENCES ekiden.errands ON DELETE CASCADE,
    number      int NOT NULL,
    http_status int,
    error       text,
    took        interval NOT NULL,
    at          timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (errand_id, number)
);

-- What is owed outside is written down in the transaction that makes it so. On the hot path the WHEN
-- is false, and costs nothing.
CREATE FUNCTION ekiden.owe_errands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told    text;
    policy  jsonb;
    gate_of record;
BEGIN
    told := CASE NEW.type WHEN 'gate_opened' THEN 'session.waiting'
                          WHEN 'gate_reminded' THEN 'session.waiting'
                          WHEN 'items_failed' THEN 'session.waiting'
                          WHEN 'budget_reached' THEN 'session.budget'
                          WHEN 'session_completed' THEN 'session.completed'
                          ELSE 'session.failed' END;
    INSERT INTO ekiden.errands (kind, session_id, phase, event, event_id, webhook_id)
    SELECT 'webhook', NEW.session_id, NEW.phase, told, NEW.id, w.id
    FROM ekiden.webhooks w WHERE w.stopped_at IS NULL AND told = ANY (w.events);
    IF NEW.type = 'gate_opened' THEN
        SELECT s.generation, coalesce(f.phases -> (NEW.phase - 1) -> 'gate', '{}')
                             || coalesce(s.gates -> NEW.phase::text, '{}') AS policy
        INTO gate_of FROM ekiden.sessions s JOIN ekiden.flows f ON f.id = s.flow_id
        WHERE s.id = NEW.session_id;
        policy := gate_of.policy;
        INSERT INTO ekiden.errands (kind, session_id, phase, generation, event, available_at)
        SELECT t.kind, NEW.session_id, NEW.phase, gate_of.generation, t.event,
               ekiden.now() + make_interval(secs => t.seconds::float8)
        FROM (VALUES ('reminder', 'remind', policy ->> 'remindAfter'),
                     ('deadline', policy ->> 'then', policy ->> 'waitAtMost'))
             AS t(kind, event, seconds)
        WHERE t.seconds IS NOT NULL AND t.event IN ('remind', 'approve', 'cancel');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION ekiden.ring_errand_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('errand_due', '');
    RETURN NULL;
END $$;

CREATE TRIGGER owe_errands AFTER INSERT ON ekiden.events
    FOR EACH ROW WHEN (NEW.type IN ('gate_opened', 'gate_reminded', 'items_failed', 'budget_reached',
                                    'session_completed', 'task_failed'))
    EXECUTE FUNCTION ekiden.owe_errands();
CREATE TRIGGER ring_on_insert AFTER INSERT ON ekiden.errands
    FOR EACH STATEMENT EXECUTE FUNCTION ekiden.ring_errand_due();

-- What a call said before it ended, and where its answer can be fetched again.
--
--   api_tasks ──< attempts ──< calls ──< partials       (call = calls.number)
--                                └────── started_calls  (one, when the provider named the answer)
--
-- Both are written while a call runs, so before its row in calls; a call whose worker is killed has
-- no row there at all, and these are what is left of it.

CREATE TABLE ekiden.partials (
    session_id uuid NOT NULL,
    task_id    bigint NOT NULL,
    attempt    int NOT NULL,
    call       int NOT NULL,           -- calls.number
    seq        int NOT NULL,           -- from 1; the chunks of a call in this order are its text
    text       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (task_id, attempt, call, seq),
    CONSTRAINT partial_is_numbered_from_one CHECK (seq >= 1),
    CONSTRAINT partial_is_not_empty CHECK (text <> '')
);
COMMENT ON TABLE ekiden.partials IS
    'The text of streamed answers as it came, appended about twice a second. A prefix of the answer.';

CREATE TRIGGER ring_on_insert AFTER INSERT ON ekiden.partials
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION ekiden.ring_session_changed();

CREATE TABLE ekiden.started_calls (
    session_id   uuid NOT NULL,
    task_id      bigint NOT NULL,
    attempt      int NOT NULL,
    number       int NOT NULL,         -- calls.number
    kind         text NOT NULL,
    provider     text NOT NULL,
    model        text NOT NULL,
    request_hash bytea NOT NULL,
    answer_id    text NOT NULL,        -- what the provider calls the answer
    started_at   timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (task_id, attempt, number)
);
COMMENT ON TABLE ekiden.started_calls IS
    'Calls whose answer the provider keeps under an id: fetched from there before it is paid for twice.';

-- A call that was stopped in the middle is in the ledger too.
ALTER TABLE ekiden.calls
    DROP CONSTRAINT call_outcome_is_known,
    DROP CONSTRAINT call_answer_is_kept,
    ADD CONSTRAINT call_outcome_is_known CHECK (outcome IN
        ('ANSWERED', 'INVALID', 'FAILED', 'ABORTED')),
    ADD CONSTRAINT call_answer_is_kept CHECK (
        outcome IN ('FAILED', 'ABORTED') OR answer IS NOT NULL);

-- A call has one answer, however often it is stored: an append whose confirmation was lost is sent
-- again, and an answer may be fetched while the attempt that asked for it still listens.
DELETE FROM ekiden.calls c USING ekiden.calls first
WHERE first.task_id = c.task_id AND first.attempt = c.attempt AND first.number = c.number
  AND (first.answer IS NULL) = (c.answer IS NULL) AND first.id < c.id;
CREATE UNIQUE INDEX calls_have_one_answer
    ON ekiden.calls (task_id, attempt, number, (answer IS NULL));

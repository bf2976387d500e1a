-- What was, counted: no question about the past reads the past. And what failed attempts logged.
--
--   attempts, calls, reviews ──(now and then, what is new)──> metric_rollups >── metric_series
--                                        └── metric_watermark: counted up to here
--
-- What is new is found by its time: these three are appended and their times never change, so a
-- block range index (a few pages for a million rows) leads to the newest pages, and costs the
-- hand-off next to nothing. That a time is no commit order is the business of queries/metrics.sql.

CREATE INDEX attempts_by_time ON ekiden.attempts
    USING brin (finished_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX calls_by_time ON ekiden.calls
    USING brin (finished_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX reviews_by_time ON ekiden.reviews
    USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE ekiden.metric_series (
    id      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    measure text NOT NULL,
    flow    text NOT NULL,
    phase   smallint NOT NULL,           -- 0 where there is none
    step    text NOT NULL,               -- '' where there is none; so are the next three
    source  text NOT NULL,               -- of a call: provider:model
    outcome text NOT NULL,
    error   text NOT NULL,               -- of an attempt that went wrong: its kind
    UNIQUE (measure, flow, phase, step, source, outcome, error),
    CONSTRAINT series_has_a_measure CHECK (measure IN
        ('attempt', 'wait', 'step', 'session', 'call', 'human'))
);

CREATE TABLE ekiden.metric_rollups (
    width         text NOT NULL,
    since         timestamptz NOT NULL,  -- when the minute, hour or day began (UTC); -infinity
    series_id     int NOT NULL,          -- no foreign key: a series is never deleted
    bucket        smallint NOT NULL,     -- of the duration: see core/histogram.py
    n             bigint NOT NULL,
    seconds       double precision NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost_usd      numeric NOT NULL,
    unpriced      bigint NOT NULL,       -- calls to a model whose cost is not known
    PRIMARY KEY (width, since, series_id, bucket),
    CONSTRAINT rollup_has_a_width CHECK (width IN ('minute', 'hour', 'day', 'ever')),
    CONSTRAINT rollup_counts CHECK (n > 0 AND seconds >= 0)
) WITH (fillfactor = 70);
COMMENT ON TABLE ekiden.metric_rollups IS
    'Durations in buckets, one row a bucket: sums of rows are again a histogram.';

CREATE TABLE ekiden.metric_watermark (
    one       boolean PRIMARY KEY DEFAULT true,
    rolled_to timestamptz NOT NULL,
    CONSTRAINT watermark_is_one CHECK (one)
);
COMMENT ON TABLE ekiden.metric_watermark IS
    'Everything before rolled_to is in metric_rollups, nothing after. Its row lock is the turn to roll.';

-- Whatever a database has done before is counted too, a day at a time.
INSERT INTO ekiden.metric_watermark (rolled_to)
SELECT coalesce((SELECT created_at - interval '1 day' FROM ekiden.sessions ORDER BY id LIMIT 1),
                ekiden.now());

-- How many wait for a person. Its predicate changes where that of sessions_with_tasks does.
CREATE INDEX sessions_at_gates ON ekiden.sessions (flow_id) WHERE status = 'AWAITING_REVIEW';

CREATE TABLE ekiden.attempt_logs (
    session_id uuid NOT NULL,
    task_id    bigint NOT NULL,
    attempt    int NOT NULL,
    lines      json NOT NULL,           -- [{at, level, event, ...}], oldest first, without secrets
    PRIMARY KEY (task_id, attempt)
);
COMMENT ON TABLE ekiden.attempt_logs IS
    'What attempts logged that failed: the newest lines of each. Others leave nothing here.';

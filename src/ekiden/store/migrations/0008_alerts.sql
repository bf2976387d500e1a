-- Alerts: what is worth a person's attention, raised once when it begins and resolved once when it is
-- over. And how long commits take.
--
--   readings ──(whoever has the turn)──> alerts ──< errands ──< errand_attempts   (webhooks)
--                 alert_watch: the turn

CREATE TABLE ekiden.alerts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    subject     text NOT NULL,           -- what it is about, within its kind: a flow, a session; or ''
    flow        text,
    session_id  uuid,
    phase       smallint,
    step        text,
    value       double precision NOT NULL,   -- what was read when it was raised,
    threshold   double precision NOT NULL,   -- and from where on that is an alert
    raised_at   timestamptz NOT NULL DEFAULT ekiden.now(),
    resolved_at timestamptz,
    CONSTRAINT alert_kind_is_known CHECK (kind IN
        ('error_rate', 'queue_age', 'stuck_session', 'budget', 'workers_lost'))
);
-- However many look at once: one that is going on is raised by nobody else.
CREATE UNIQUE INDEX alerts_open ON ekiden.alerts (kind, subject) WHERE resolved_at IS NULL;

CREATE TABLE ekiden.alert_watch (
    one       boolean PRIMARY KEY DEFAULT true,
    looked_at timestamptz NOT NULL,
    CONSTRAINT alert_watch_is_one CHECK (one)
);
COMMENT ON TABLE ekiden.alert_watch IS 'When somebody last looked. Its row lock is the turn to look.';
INSERT INTO ekiden.alert_watch (looked_at) VALUES ('-infinity');

-- An alert is told as everything else is: by an errand.
ALTER TABLE ekiden.errands
    ALTER session_id DROP NOT NULL,
    ADD alert_id bigint REFERENCES ekiden.alerts ON DELETE CASCADE,
    ADD CONSTRAINT errand_is_of_a_session_or_an_alert CHECK ((session_id IS NULL) = (alert_id IS NOT NULL));
CREATE INDEX errands_of_alert ON ekiden.errands (alert_id) WHERE alert_id IS NOT NULL;

-- A commit is of many attempts, of any flow and step: one series.
ALTER TABLE ekiden.metric_series
    DROP CONSTRAINT series_has_a_measure,
    ADD CONSTRAINT series_has_a_measure CHECK (measure IN
        ('attempt', 'wait', 'step', 'session', 'call', 'token', 'human', 'commit'));
INSERT INTO ekiden.metric_series (measure, flow, phase, step, source, outcome, error)
VALUES ('commit', '', 0, '', '', '', '');

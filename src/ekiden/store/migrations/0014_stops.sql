-- One stop is told once, and what refers to a revision is found by it.

CREATE OR REPLACE FUNCTION ekiden.owe_errands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told    text;
    policy  jsonb;
    gate_of record;
BEGIN
    -- A fan-out has an event for each item that comes upon what its session was stopped by already.
    IF NOT coalesce((NEW.data ->> 'first')::boolean, true) THEN
        RETURN NULL;
    END IF;
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

-- Asked at every look at a gate, and by PostgreSQL for every revision that is deleted.
CREATE INDEX reviews_of_revision ON ekiden.reviews (revision_id);

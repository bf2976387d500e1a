-- Each receiver is told by itself, and the gates are receiver 0: one that swallows what it is sent must
-- hold up nobody else.
DROP INDEX ekiden.errands_due;
CREATE INDEX errands_due ON ekiden.errands (coalesce(webhook_id, 0), available_at, id)
    WHERE status = 'QUEUED';

-- Feeds: when each is fetched next. Claimed like errands: a claim is a date in the future, so a feed
-- whose worker died is due again by itself.

-- name: add_feed
-- Makes a feed known that was fetched just now, or begins anew with one that is; due again after $2.
-- Rings, so that an idle worker notes the date.
WITH added AS (
    INSERT INTO ekiden.feeds AS f (source, fetched_at, available_at)
    VALUES ($1, ekiden.now(), ekiden.now() + $2)
    ON CONFLICT (source) DO UPDATE
    SET fetched_at = excluded.fetched_at, available_at = excluded.available_at, failures = 0,
        error = NULL
    RETURNING f.source
)
SELECT pg_notify('feed_due', source) FROM added;

-- name: claim_feeds
-- Takes up to $1 due feeds for $2; nobody else sees them as due until then.
WITH due AS MATERIALIZED (
    SELECT source FROM ekiden.feeds WHERE available_at <= ekiden.now()
    ORDER BY available_at, source LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE ekiden.feeds f
SET attempt = attempt + 1, available_at = ekiden.now() + $2
FROM due WHERE f.source = due.source
RETURNING f.source, f.attempt, f.etag, f.last_modified, f.failures;

-- name: next_feed
-- When the nearest feed becomes due, as an interval from now; null if there is none.
SELECT available_at - ekiden.now() FROM ekiden.feeds ORDER BY available_at, source LIMIT 1;

-- name: feed_fetched
-- Notes that a feed's server answered, and what it wants to be asked with; due again after $3. Fenced
-- on the attempt ($2).
UPDATE ekiden.feeds
SET available_at = ekiden.now() + $3, etag = $4, last_modified = $5, fetched_at = ekiden.now(),
    failures = 0, error = NULL
WHERE source = $1 AND attempt = $2;

-- name: feed_failed
-- Notes what went wrong with a feed; due again after $3. Fenced on the attempt ($2).
UPDATE ekiden.feeds
SET available_at = ekiden.now() + $3, failures = failures + 1, error = $4
WHERE source = $1 AND attempt = $2;

-- name: list_feeds
-- The feeds, with how the last look at each went.
SELECT source, fetched_at, available_at, failures, error FROM ekiden.feeds ORDER BY source;

-- Answers that nobody wants any more, who can ask which provider, and feeds that are fetched by
-- themselves.
--
--   a source (the address of a feed) ──< a document      (0002_documents.sql)
--     └── feeds: when it is fetched next, and what its server wants to be asked with

ALTER TABLE ekiden.started_calls
    ADD withdrawn_at timestamptz;    -- its session was cancelled, and the provider was told
-- Looked at when a session is cancelled, for what began lately.
CREATE INDEX started_calls_lately ON ekiden.started_calls (started_at) WHERE withdrawn_at IS NULL;

ALTER TABLE ekiden.workers
    ADD providers text[] NOT NULL DEFAULT '{}';  -- whose models it has what it takes to ask

CREATE TABLE ekiden.feeds (
    source        text PRIMARY KEY,  -- its address; documents.source of its entries
    etag          text,              -- as its server gave them with the last answer that was read,
    last_modified text,              -- handed back so that it may say "nothing new" (RFC 9110 §13.1)
    attempt       int NOT NULL DEFAULT 0,          -- the fencing token
    failures      int NOT NULL DEFAULT 0,          -- in a row
    error         text,              -- what went wrong last
    available_at  timestamptz NOT NULL DEFAULT ekiden.now(),  -- when it is fetched next
    fetched_at    timestamptz,       -- when its server answered last
    added_at      timestamptz NOT NULL DEFAULT ekiden.now(),
    CONSTRAINT feed_failures_count_from_zero CHECK (failures >= 0)
);
CREATE INDEX feeds_due ON ekiden.feeds (available_at, source);

-- Feeds that were added before this was known, by hand until now.
INSERT INTO ekiden.feeds (source)
SELECT DISTINCT source FROM ekiden.documents WHERE source ~* '^https?://' AND part = 0;

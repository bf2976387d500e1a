-- Finished sessions are put away, titles are searched without their rows, and the key is not guessed
-- in a hurry.

-- A flag, not a state: whoever takes an archived session up again brings it back.
ALTER TABLE ekiden.sessions
    ADD archived_at timestamptz,
    ADD CONSTRAINT session_is_archived_once_it_stands_still CHECK (
        archived_at IS NULL OR status IN ('COMPLETED', 'FAILED', 'CANCELLED'));
-- The list, newest first, however many are put away, and the other way round. A search reads the
-- titles here and not the wide rows; a title has at most 500 characters, which a page of the index
-- holds. Hops stay HOT: a title never changes, and the predicate when somebody archives.
CREATE INDEX sessions_shown ON ekiden.sessions (id) INCLUDE (title) WHERE archived_at IS NULL;
CREATE INDEX sessions_archived ON ekiden.sessions (id) INCLUDE (title) WHERE archived_at IS NOT NULL;

-- Logins that were tried lately, at all API processes together.
CREATE TABLE ekiden.login_attempts (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text NOT NULL,             -- who asked: an IPv4 address, or the /64 of an IPv6 one
    at      timestamptz NOT NULL DEFAULT ekiden.now()
);

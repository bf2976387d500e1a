-- More of what is known of a call, and searches that were paid for today.

ALTER TABLE ekiden.calls
    ADD COLUMN request_id    text,      -- the provider's own, as its support asks for it
    ADD COLUMN first_token   interval,  -- from the request to the first text; null: not streamed
    ADD COLUMN price_version text,      -- which price list cost_usd is from; null: no price is known
    ADD COLUMN finish_reason text,      -- why the model stopped: stop, length, ...
    ADD COLUMN citations     json;      -- [{url, title, published}]: what the provider says it read
COMMENT ON COLUMN ekiden.calls.first_token IS
    'Tokens a second: output_tokens / extract(epoch FROM finished_at - started_at - first_token).';

CREATE TABLE ekiden.searches (
    engine     text NOT NULL,          -- who was asked
    asked      bytea NOT NULL,         -- SHA-256 of query, language and how many
    day        date NOT NULL,          -- UTC
    found      json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT ekiden.now(),
    PRIMARY KEY (day, engine, asked)
);
COMMENT ON TABLE ekiden.searches IS
    'What paid search engines found, by day: the same question is paid for once a day.';

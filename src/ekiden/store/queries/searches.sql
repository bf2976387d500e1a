-- What paid search engines found, so that the same question is paid for once a day.

-- name: found_today
-- What an engine ($1) found to a question ($2, a hash) today.
SELECT found::text FROM ekiden.searches
WHERE day = (ekiden.now() AT TIME ZONE 'UTC')::date AND engine = $1 AND asked = $2;

-- name: keep_search
-- Keeps what an engine found; the first answer of a day stays. What is of another day goes.
WITH older AS (
    DELETE FROM ekiden.searches WHERE day < (ekiden.now() AT TIME ZONE 'UTC')::date
)
INSERT INTO ekiden.searches (engine, asked, day, found)
VALUES ($1, $2, (ekiden.now() AT TIME ZONE 'UTC')::date, $3::json)
ON CONFLICT DO NOTHING;

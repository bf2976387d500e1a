-- Logins that were tried, counted for all API processes together; and those that ended.

-- name: lock_logins
-- Lets one login be counted after the other, so that many at once do not all see the same count.
SELECT pg_advisory_xact_lock(hashtextextended('ekiden.logins', 0));

-- name: count_login
-- Counts a login that address $1 tries, unless $3 of it or $4 of all are within the last $2 already.
-- Returns the id of what was counted, or the seconds until there is room again.
WITH forgotten AS (
    DELETE FROM ekiden.login_attempts WHERE at <= ekiden.now() - $2::interval
), recent AS MATERIALIZED (
    SELECT a.address, a.at FROM ekiden.login_attempts a WHERE a.at > ekiden.now() - $2::interval
), full_until AS (
    SELECT max(f.at) + $2::interval AS at
    FROM ((SELECT r.at FROM recent r WHERE r.address = $1 ORDER BY r.at DESC OFFSET $3::int - 1 LIMIT 1)
          UNION ALL
          (SELECT r.at FROM recent r ORDER BY r.at DESC OFFSET $4::int - 1 LIMIT 1)) f
), counted AS (
    INSERT INTO ekiden.login_attempts (address) SELECT $1 FROM full_until f WHERE f.at IS NULL
    RETURNING id
)
SELECT c.id, extract(epoch FROM f.at - ekiden.now())::float8 AS wait
FROM full_until f LEFT JOIN counted c ON true;

-- name: forget_login
-- Takes back what was counted: the key was right.
DELETE FROM ekiden.login_attempts WHERE id = $1;

-- name: tell_logout
-- Tells every API process that login $1 has ended, and the event streams that it opened with it.
SELECT pg_notify('login_ended', $1);

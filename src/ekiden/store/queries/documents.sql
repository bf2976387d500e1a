-- What can be searched here, and the search.

-- name: put_documents
-- Adds passages, or brings them up to date, many at once. A passage that is there unchanged is not
-- written again. $8 and $9 are title and body as the index takes them (see store/words.py).
WITH given AS (
    SELECT source, url, part, title, body, language, licence, title_words, body_words, published,
           content_hash
    FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::date[], $11::bytea[])
         AS g(source, url, part, title, body, language, licence, title_words, body_words, published,
              content_hash)
), new AS (
    -- Left out before the words are parsed: adding a large folder again costs a look at the keys.
    SELECT g.* FROM given g
    WHERE NOT EXISTS (SELECT FROM ekiden.documents d
                      WHERE d.source = g.source AND d.url = g.url AND d.part = g.part
                        AND d.content_hash = g.content_hash)
), written AS (
    INSERT INTO ekiden.documents AS d (source, url, part, title, body, language, licence, published,
                                       content_hash, words)
    SELECT source, url, part, title, body, language, licence, published, content_hash,
           setweight(to_tsvector('english', title_words), 'A')
           || setweight(to_tsvector('english', body_words), 'B')
    FROM new
    ON CONFLICT (source, url, part) DO UPDATE
    SET title = excluded.title, body = excluded.body, language = excluded.language,
        licence = excluded.licence, published = excluded.published,
        content_hash = excluded.content_hash, words = excluded.words, added_at = ekiden.now()
    WHERE d.content_hash <> excluded.content_hash
    RETURNING 1
), shortened AS (
    -- A document that has become shorter leaves no old passages behind.
    DELETE FROM ekiden.documents d
    USING (SELECT source, url, max(part) AS last FROM given GROUP BY source, url) AS kept
    WHERE d.source = kept.source AND d.url = kept.url AND d.part > kept.last
)
SELECT count(*) FROM written;

-- name: search_documents
-- The best passage of each document, best document first. $1 are the terms, each in the syntax of
-- to_tsquery, $2 what each counts, $3 the preferred language, $4 how many.
--
-- A term is worth more the fewer passages have it, which PostgreSQL's own ranking does not know and
-- a long question needs: "history of the relay race in Japan" is about relay. A passage scores the
-- worth of the terms it has, times how well they sit in it; so those with all terms come first, and
-- when there are none with all, those with the telling ones.
WITH asked AS MATERIALIZED (
    SELECT query, max(weight) AS weight
    FROM (SELECT to_tsquery('english', term) AS query, weight
          FROM unnest($1::text[], $2::float8[]) AS t(term, weight)) AS parsed
    WHERE numnode(query) > 0           -- stop words leave nothing
    GROUP BY query
), hits AS MATERIALIZED (
    -- 1: divided by the logarithm of the length, so that a short passage about it wins.
    SELECT d.id, a.query, a.weight, ts_rank(d.words, a.query, 1) AS fit
    FROM asked a JOIN ekiden.documents d ON d.words @@ a.query
), weighed AS (
    -- The planner's estimate of the size will do: only the order of magnitude matters.
    SELECT id, fit, weight * ln(1 + (SELECT greatest(reltuples, 1000) FROM pg_class
                                     WHERE oid = 'ekiden.documents'::regclass)
                                    / count(*) OVER (PARTITION BY query)) AS worth
    FROM hits
), scored AS MATERIALIZED (
    SELECT id, sum(worth) * sum(worth * fit) AS score FROM weighed GROUP BY id
    ORDER BY score DESC, id
    LIMIT $4 * 20                      -- room for other passages of the same documents
), together AS (
    SELECT string_agg('(' || query::text || ')', ' & ')::tsquery AS terms FROM asked
), judged AS MATERIALIZED (
    -- Only for the few that are left: how much of the title was asked for (who says "music" means
    -- Music before Arabic music), and whether the terms stand close together.
    SELECT d.id, d.source, d.url,
           s.score
           * (1 + 2 * least(1.0, (SELECT coalesce(sum((numnode(a.query) + 1) / 2), 0) FROM asked a
                              WHERE ts_filter(d.words, '{a}') @@ a.query)
                             / greatest(1.0, length(ts_filter(d.words, '{a}')))) ^ 2)
           * (1 + ts_rank_cd(d.words, t.terms, 32))
           * CASE WHEN d.language = $3 THEN 1.2 ELSE 1 END AS score
    FROM scored s JOIN ekiden.documents d USING (id) CROSS JOIN together t
), best AS (
    SELECT DISTINCT ON (source, url) id, score FROM judged ORDER BY source, url, score DESC, id
)
SELECT d.source, d.url, d.part, d.title, d.body, d.language, d.licence, d.published, b.score
FROM (SELECT id, score FROM best ORDER BY score DESC, id LIMIT $4) AS b
    JOIN ekiden.documents d USING (id)
ORDER BY b.score DESC, d.id;

-- name: count_documents
-- How many documents each source has.
SELECT source, count(*) AS documents FROM ekiden.documents WHERE part = 0
GROUP BY source ORDER BY source;

-- name: remove_source
-- Removes all of a source; a feed is not fetched any more.
WITH gone AS (DELETE FROM ekiden.documents WHERE source = $1 RETURNING part),
     forgotten AS (DELETE FROM ekiden.feeds WHERE source = $1)
SELECT count(*) FILTER (WHERE part = 0) FROM gone;

-- name: keep_documents
-- Removes the documents of a source that are not among these urls.
WITH gone AS (
    DELETE FROM ekiden.documents d
    WHERE d.source = $1
      AND NOT EXISTS (SELECT FROM unnest($2::text[]) AS k(url) WHERE k.url = d.url)
    RETURNING part
)
SELECT count(*) FILTER (WHERE part = 0) FROM gone;

-- What is searched when there is no search service: the folders of the user, and the demo corpus.
--
--   a source (a folder, a corpus) ──< a document (one url) ──< its passages (rows, part 0, 1, …)
--
-- No extension is needed. Languages without spaces are cut into pairs of characters before they come
-- here (store/words.py), so one index serves English, Japanese and text that mixes the two.

CREATE TABLE ekiden.documents (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text NOT NULL,        -- what was added: a corpus by name, a folder by path
    url          text NOT NULL,        -- where a person reads the whole of it
    part         int NOT NULL,         -- which passage of the document, from 0
    title        text NOT NULL,
    body         text NOT NULL,
    language     text NOT NULL,
    licence      text,                 -- shown wherever the passage is
    published    date,
    content_hash bytea NOT NULL,       -- of everything above that can change; the same again is no write
    words        tsvector NOT NULL,    -- title A, body B
    added_at     timestamptz NOT NULL DEFAULT ekiden.now(),
    CONSTRAINT document_part_counts_from_zero CHECK (part >= 0),
    UNIQUE (source, url, part)
);
-- Added in bulk, then searched at once: without fastupdate no search has to walk a pending list.
CREATE INDEX documents_words ON ekiden.documents USING gin (words) WITH (fastupdate = off);
-- Counts documents, not passages, without reading the table.
CREATE INDEX documents_of_source ON ekiden.documents (source) WHERE part = 0;

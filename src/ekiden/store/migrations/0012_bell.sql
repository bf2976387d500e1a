-- The bell of completed tasks, without a look at what is too large for it anyway.

CREATE OR REPLACE FUNCTION ekiden.ring_task_completed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A COMPLETED row never changes again, so a COMPLETED row seen here has just become it.
    -- A payload of 8,000 bytes would abort the commit that stores the answer: large results stay
    -- out of it. What a result takes on disk is asked first: its text would have to be read back
    -- and unpacked. It is JSON already; put together as text, for json_build_object asks the
    -- catalogue what each of its arguments is.
    PERFORM pg_notify('task_completed',
        '{"taskId" : ' || id || ', "sessionId" : "' || session_id || '"'
        || CASE WHEN pg_column_size(result) <= 4096 AND octet_length(result::text) <= 4000
                THEN ', "result" : ' || result::text ELSE '' END || '}')
    FROM changed WHERE status = 'COMPLETED';
    RETURN NULL;
END $$;

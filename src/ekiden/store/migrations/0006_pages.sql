-- What the pages need: what waits for a person is found without a look at what does not, and a
-- draft goes through the hands of those who publish it.

-- Its predicate changes at gates only, and is on a column that one is on already: hops stay HOT.
CREATE INDEX sessions_at_gate ON ekiden.sessions (id) WHERE status = 'AWAITING_REVIEW';

ALTER TABLE ekiden.drafts
    ADD COLUMN status text NOT NULL DEFAULT 'DRAFT',
    ADD COLUMN changed_by text,        -- who moved it last
    ADD COLUMN changed_at timestamptz,
    ADD CONSTRAINT draft_status_is_known CHECK (status IN
        ('DRAFT', 'APPROVED', 'SCHEDULED', 'POSTED', 'ARCHIVED'));
CREATE INDEX drafts_by_status ON ekiden.drafts (status, id);

-- A draft goes through the hands of those who publish it.

ALTER TABLE ekiden.drafts
    ADD COLUMN status text NOT NULL DEFAULT 'DRAFT',
    ADD COLUMN changed_by text,        -- who moved it last
    ADD COLUMN changed_at timestamptz,
    ADD CONSTRAINT draft_status_is_known CHECK (status IN
        ('DRAFT', 'APPROVED', 'SCHEDULED', 'POSTED', 'ARCHIVED'));
CREATE INDEX drafts_by_status ON ekiden.drafts (status, id);

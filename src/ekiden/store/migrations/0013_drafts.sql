-- What was done to a draft last, beside who did it and when.

ALTER TABLE ekiden.drafts
    ADD COLUMN change text,            -- null: nothing, or it was done before this was kept
    ADD CONSTRAINT draft_change_is_known CHECK (change IN ('moved', 'edited'));

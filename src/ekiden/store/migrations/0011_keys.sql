-- What an idempotency key of a decision stands for.

ALTER TABLE ekiden.reviews
    ADD asked bytea;   -- digest of what its key came with; null: no key, or kept before this was

-- What refers to a revision is found by it.

-- Asked at every look at a gate, and by PostgreSQL for every revision that is deleted.
CREATE INDEX reviews_of_revision ON ekiden.reviews (revision_id);

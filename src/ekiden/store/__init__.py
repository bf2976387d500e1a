"""PostgreSQL and nothing else: the schema, the named queries, the doorbell, the embedded server."""

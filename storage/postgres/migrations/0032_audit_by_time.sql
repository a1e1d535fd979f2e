-- Acts of people, newest first: all of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_by_time ON audit (at, id);

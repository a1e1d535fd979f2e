-- Acts of people, newest first: those about one thing.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_by_subject ON audit (subject, at, id);

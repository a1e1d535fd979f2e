-- Acts of people, newest first: those of one kind.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_by_action ON audit (action, at, id);

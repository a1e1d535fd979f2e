-- Acts of people, newest first: those of one person.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_by_person ON audit (by, at, id);

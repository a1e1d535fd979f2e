-- Acts of people, newest first: those of one person and one kind. Both are one column, because the planner would rather
-- sort what the index of a person has, which may be nearly all acts.
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_by_person_and_action ON audit ((ARRAY[by, action]), at, id);

-- Disputes by the channel's id alone: a person who holds it may not know whose payment it is about.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_by_id ON disputes (dispute_id);

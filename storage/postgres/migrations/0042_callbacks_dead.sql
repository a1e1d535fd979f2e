-- Callbacks that were given up, by age. There are few.
CREATE INDEX CONCURRENTLY IF NOT EXISTS callbacks_dead ON callbacks (dead_at, id) WHERE dead_at IS NOT NULL;

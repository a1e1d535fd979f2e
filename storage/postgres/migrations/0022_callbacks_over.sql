-- Handled and given up callbacks by age: the worker deletes old ones.
CREATE INDEX CONCURRENTLY IF NOT EXISTS callbacks_over ON callbacks (coalesce(handled_at, dead_at))
    WHERE handled_at IS NOT NULL OR dead_at IS NOT NULL;

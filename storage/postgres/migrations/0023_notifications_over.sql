-- Delivered and superseded notifications by age: the worker deletes old ones.
CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_over ON notifications (coalesce(delivered_at, superseded_at))
    WHERE delivered_at IS NOT NULL OR superseded_at IS NOT NULL;

-- Notifications that wait for their endpoint or their turn, by endpoint: the worker lets them go in their order.
CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_held
    ON notifications (split_part(split_part(url, '?', 1), '#', 1), created_at, id) WHERE held_at IS NOT NULL;

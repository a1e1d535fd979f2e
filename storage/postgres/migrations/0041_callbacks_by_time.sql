-- Callbacks of an account by age: operators list the newest first, and see since when there was none.
CREATE INDEX CONCURRENTLY IF NOT EXISTS callbacks_by_time ON callbacks (channel_account, received_at, id);

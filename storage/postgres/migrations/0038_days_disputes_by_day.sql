-- Disputes that began on one day of an account.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_by_day ON disputes (channel_account, opened_at);

-- Disputes that are over, by the time of their end.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_over
    ON disputes (state, changed_at, channel_account, out_trade_no, dispute_id)
    WHERE state IN ('won', 'lost', 'closed');

-- Disputes that are not over, by the last moment to answer; those without one come last. The second condition is true of
-- every row, and only the list names it: those of one order are looked up by its number.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_due
    ON disputes ((coalesce(respond_by, '9999-12-31 00:00:00+00')), channel_account, out_trade_no, dispute_id)
    WHERE state IN ('open', 'under_review') AND dispute_id <> '';

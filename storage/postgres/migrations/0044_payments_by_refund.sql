-- Payments by the numbers of the channel's own refunds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_by_refund ON payments USING gin (channel_refunds)
    WITH (fastupdate = off) WHERE channel_refunds <> '{}';

-- Refunds by the channel's own number, which somebody holds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_by_channel_no ON refunds (channel_refund_no) WHERE channel_refund_no IS NOT NULL;

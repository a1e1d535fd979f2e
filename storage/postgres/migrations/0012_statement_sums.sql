-- Reconciliation by every id: what unknown rows may belong to, and refunds that no statement lists.

CREATE INDEX payments_unpaid_by_amount ON payments (channel_account, amount, created_at) WHERE status <> 'paid';
COMMENT ON INDEX payments_unpaid_by_amount IS 'unpaid payments that an unknown row of a statement agrees with';
CREATE INDEX refunds_by_settled_at ON refunds (channel_account, settled_at, refund_no) WHERE status = 'succeeded';
COMMENT ON INDEX refunds_by_settled_at IS 'what was refunded on one day';

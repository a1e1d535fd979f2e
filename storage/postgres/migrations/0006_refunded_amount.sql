-- What is known of the money that a channel has given back. Not every channel tells a total.

ALTER TABLE payments ADD COLUMN is_refund_amount_unknown boolean NOT NULL DEFAULT false;
ALTER TABLE payments ADD COLUMN channel_refunds jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN payments.is_refund_amount_unknown IS 'something was given back and no sum is known: refunded_amount then says nothing';
COMMENT ON COLUMN payments.channel_refunds IS 'single refunds by their number, in minor units, where the channel tells those and no total';

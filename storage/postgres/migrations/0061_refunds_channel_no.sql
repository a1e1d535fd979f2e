-- The channel's own number of a refund of ours: a buyer, a bank or the channel's support holds that one.
ALTER TABLE refunds ADD COLUMN channel_refund_no text;
ALTER TABLE refunds ADD CONSTRAINT refunds_channel_refund_no
    CHECK (length(channel_refund_no) BETWEEN 1 AND 255) NOT VALID;
COMMENT ON COLUMN refunds.channel_refund_no IS
    'the channel''s own number of it; null: no answer had one, it is older than this column, or the channel gives none';

-- As before, and the first number stays.
CREATE OR REPLACE FUNCTION guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND NOT (
           (OLD.status = 'requested'  AND NEW.status IN ('processing', 'succeeded', 'failed'))
        OR (OLD.status = 'processing' AND NEW.status IN ('succeeded', 'failed'))) THEN
        RAISE EXCEPTION 'refund % cannot move from % to %', OLD.refund_no, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_legal_move';
    END IF;
    IF (NEW.channel_account, NEW.out_trade_no, NEW.order_no, NEW.amount, NEW.currency)
       IS DISTINCT FROM (OLD.channel_account, OLD.out_trade_no, OLD.order_no, OLD.amount, OLD.currency) THEN
        RAISE EXCEPTION 'refund % cannot become another one', OLD.refund_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_same_terms';
    END IF;
    IF OLD.channel_refund_no IS NOT NULL AND NEW.channel_refund_no IS DISTINCT FROM OLD.channel_refund_no THEN
        RAISE EXCEPTION 'refund % cannot get another number of its channel', OLD.refund_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_same_channel_number';
    END IF;
    RETURN NEW;
END $$;

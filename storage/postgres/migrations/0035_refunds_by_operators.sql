-- Refunds that operators request: in part, several of one payment, also of the payment that paid its order; and those that
-- wait for a second operator.

ALTER TABLE refunds
    ADD COLUMN request_key text NOT NULL DEFAULT '',
    ADD COLUMN note        text NOT NULL DEFAULT '';
COMMENT ON COLUMN refunds.request_key IS 'the key of whoever wanted it: the same key of an order is the same refund';
COMMENT ON COLUMN refunds.note IS 'the operator''s reason; no channel sees it, and it is erased with the order''s texts';
COMMENT ON COLUMN refunds.amount IS 'minor units of the currency: all that was left of the payment, or a part';
COMMENT ON COLUMN refunds.refund_no IS 'our number for it at the channel, derived from the payment''s: deciding twice is the same refund';

-- As before, but for operators: the money that paid the order may go back too, and all refunds of one payment together
-- are never more than came. Two at once meet at the order's version.
CREATE OR REPLACE FUNCTION guard_refunded() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payment payments%ROWTYPE;
    total   bigint;
BEGIN
    SELECT * INTO payment FROM payments p
     WHERE p.channel_account = NEW.channel_account AND p.out_trade_no = NEW.out_trade_no;
    SELECT sum(r.amount) INTO total FROM refunds r
     WHERE r.channel_account = NEW.channel_account AND r.out_trade_no = NEW.out_trade_no AND r.status <> 'failed';
    IF payment.status <> 'paid' OR payment.origin <> 'ours' OR payment.order_no <> NEW.order_no
       OR payment.currency <> NEW.currency OR total > payment.amount THEN
        RAISE EXCEPTION 'refund % is not of money that came for payment %', NEW.refund_no, NEW.out_trade_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_of_what_came';
    END IF;
    IF NEW.reason <> 'operator' AND EXISTS (SELECT FROM orders o
                WHERE o.order_no = NEW.order_no AND o.paid_by_account = NEW.channel_account
                  AND o.paid_by_out_trade_no = NEW.out_trade_no) THEN
        RAISE EXCEPTION 'refund % is of the payment that paid order %', NEW.refund_no, NEW.order_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_not_of_what_paid';
    END IF;
    IF NEW.request_key <> '' AND EXISTS (SELECT FROM refunds r
                WHERE r.order_no = NEW.order_no AND r.request_key = NEW.request_key
                  AND r.refund_no <> NEW.refund_no) THEN
        RAISE EXCEPTION 'refund % has the key of another refund of order %', NEW.refund_no, NEW.order_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_one_of_each_key';
    END IF;
    RETURN NULL;
END $$;

CREATE TABLE refund_approvals (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_no        text        NOT NULL REFERENCES orders,
    channel_account text        NOT NULL,
    out_trade_no    text        NOT NULL,
    amount          bigint      NOT NULL CHECK (amount > 0),
    currency        text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    request_key     text        NOT NULL CHECK (request_key <> ''),
    reason          text        NOT NULL,
    requested_by    text        NOT NULL CHECK (requested_by <> ''),
    requested_at    timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    decision        text        CHECK (decision IN ('approved', 'declined')),
    decided_by      text,
    decided_at      timestamptz,
    decided_reason  text        NOT NULL DEFAULT '',
    refund_no       text        REFERENCES refunds,
    UNIQUE (order_no, request_key),
    FOREIGN KEY (channel_account, out_trade_no) REFERENCES payments,
    CHECK ((decision IS NULL) = (decided_by IS NULL) AND (decision IS NULL) = (decided_at IS NULL)),
    CHECK (decided_by <> requested_by),
    CHECK (refund_no IS NULL OR decision = 'approved')
);
COMMENT ON TABLE refund_approvals IS 'refunds above OPS_REFUND_ALONE_MAX, which wait for a second operator';
COMMENT ON COLUMN refund_approvals.amount IS 'minor units of the currency';
COMMENT ON COLUMN refund_approvals.expires_at IS 'from then on nobody can approve it';
COMMENT ON COLUMN refund_approvals.refund_no IS 'the refund that was requested then; null: not approved, or a process died between the two';

-- What waits, newest first.
CREATE INDEX refund_approvals_open ON refund_approvals (id) WHERE refund_no IS NULL AND decision IS DISTINCT FROM 'declined';

-- What was decided stays, and what was requested never becomes another refund. Only an erased order loses the texts.
CREATE FUNCTION guard_refund_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.order_no, NEW.channel_account, NEW.out_trade_no, NEW.amount, NEW.currency, NEW.request_key,
        NEW.requested_by, NEW.requested_at, NEW.expires_at)
       IS DISTINCT FROM (OLD.order_no, OLD.channel_account, OLD.out_trade_no, OLD.amount, OLD.currency, OLD.request_key,
        OLD.requested_by, OLD.requested_at, OLD.expires_at)
       OR (OLD.decision IS NOT NULL AND (NEW.decision, NEW.decided_by) IS DISTINCT FROM (OLD.decision, OLD.decided_by))
       OR (OLD.refund_no IS NOT NULL AND NEW.refund_no IS DISTINCT FROM OLD.refund_no) THEN
        RAISE EXCEPTION 'approval % cannot become another one', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refund_approvals_same_terms';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_refund_approval BEFORE UPDATE ON refund_approvals
    FOR EACH ROW EXECUTE FUNCTION guard_refund_approval();

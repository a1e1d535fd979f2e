-- Money that goes back: a row is written in the statement that says why, and is asked about until it is definite.

CREATE TABLE refunds (
    refund_no       text        PRIMARY KEY CHECK (refund_no ~ '^[0-9A-Za-z_|*@-]{1,64}$'),
    channel_account text        NOT NULL,
    out_trade_no    text        NOT NULL,
    order_no        text        NOT NULL REFERENCES orders,
    amount          bigint      NOT NULL CHECK (amount > 0),
    currency        text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    reason          text        NOT NULL CHECK (reason IN ('late', 'double', 'operator')),
    status          text        NOT NULL CHECK (status IN ('requested', 'processing', 'succeeded', 'failed')),
    attempt         integer     NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    arm_no          integer     NOT NULL DEFAULT 1 CHECK (arm_no >= 1),
    due_at          timestamptz NOT NULL DEFAULT now(),
    leased_until    timestamptz,
    requested_at    timestamptz NOT NULL,
    settled_at      timestamptz,
    last_error      text        NOT NULL DEFAULT '',
    FOREIGN KEY (channel_account, out_trade_no) REFERENCES payments,
    CHECK ((status IN ('succeeded', 'failed')) = (settled_at IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON COLUMN refunds.refund_no IS 'our number for it at the channel, derived from the payment''s: asking twice is the same refund';
COMMENT ON COLUMN refunds.amount IS 'minor units of the currency: all that was left of the payment';
COMMENT ON COLUMN refunds.reason IS 'late: came after close; double: came twice; operator: a person decided';
COMMENT ON COLUMN refunds.attempt IS 'which of the n² attempts to have it definite is due; the first one is due at once';
COMMENT ON COLUMN refunds.arm_no IS 'grows with every scheduling; the job id ends in it';
COMMENT ON COLUMN refunds.leased_until IS 'somebody is asking the channel until then; once set, the channel may know the refund';
COMMENT ON COLUMN refunds.last_error IS 'why it failed, or what kept the last attempt from an answer';

CREATE INDEX refunds_due ON refunds (due_at) WHERE status IN ('requested', 'processing');
CREATE INDEX refunds_by_order ON refunds (order_no);
CREATE INDEX refunds_by_payment ON refunds (channel_account, out_trade_no);

-- What is definite stays so, and what a refund is of never changes.
CREATE FUNCTION guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
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
    RETURN NEW;
END $$;
CREATE TRIGGER guard_refund BEFORE UPDATE ON refunds FOR EACH ROW EXECUTE FUNCTION guard_refund();

-- Only money that came goes back, once, and never that which paid the order. Looked at when the statement is over: the
-- same one may have made the payment paid. Two of them at once for one payment meet at the order's version.
CREATE FUNCTION guard_refunded() RETURNS trigger LANGUAGE plpgsql AS $$
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
    IF EXISTS (SELECT FROM orders o
                WHERE o.order_no = NEW.order_no AND o.paid_by_account = NEW.channel_account
                  AND o.paid_by_out_trade_no = NEW.out_trade_no) THEN
        RAISE EXCEPTION 'refund % is of the payment that paid order %', NEW.refund_no, NEW.order_no
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_not_of_what_paid';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER guard_refunded AFTER INSERT ON refunds FOR EACH ROW EXECUTE FUNCTION guard_refunded();

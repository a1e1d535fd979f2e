-- Disputes and reversals: what a channel says about money that it takes back. A row is written by the door, with the
-- order's event, and only moves forward.

CREATE TABLE disputes (
    channel_account text        NOT NULL,
    out_trade_no    text        NOT NULL,
    dispute_id      text        NOT NULL CHECK (dispute_id <> ''),
    order_no        text        NOT NULL REFERENCES orders,
    kind            text        NOT NULL CHECK (kind IN ('inquiry', 'claim', 'reversal', 'refund')),
    state           text        NOT NULL CHECK (state IN ('open', 'under_review', 'won', 'lost', 'closed')),
    amount          bigint      CHECK (amount >= 0),
    currency        text        CHECK (currency ~ '^[A-Z]{3}$'),
    reason          text        NOT NULL DEFAULT '',
    outcome         text        NOT NULL DEFAULT '',
    respond_by      timestamptz,
    opened_at       timestamptz NOT NULL,
    changed_at      timestamptz NOT NULL,
    PRIMARY KEY (channel_account, out_trade_no, dispute_id),
    FOREIGN KEY (channel_account, out_trade_no) REFERENCES payments
);
COMMENT ON COLUMN disputes.dispute_id IS 'the channel''s id; one dispute may be about several payments';
COMMENT ON COLUMN disputes.kind IS 'inquiry: no money moves; claim: it is withheld; reversal: it was taken back; refund: it did not reach the buyer';
COMMENT ON COLUMN disputes.amount IS 'minor units of the currency; null: the channel does not say';
COMMENT ON COLUMN disputes.reason IS 'the channel''s word';
COMMENT ON COLUMN disputes.outcome IS 'the channel''s word for how it ended';
COMMENT ON COLUMN disputes.respond_by IS 'the last moment to answer it at the channel';
COMMENT ON COLUMN disputes.changed_at IS 'the channel''s time of this state';

CREATE INDEX disputes_by_order ON disputes (order_no);

-- A dispute moves forward: an inquiry becomes a claim, an open one is decided.
CREATE FUNCTION guard_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    final CONSTANT text[] := ARRAY['won', 'lost', 'closed'];
BEGIN
    IF NEW.kind = OLD.kind AND (
           (OLD.state = ANY(final) AND NEW.state <> ALL(final))
        OR (OLD.state = 'under_review' AND NEW.state = 'open')) OR (NEW.kind = 'inquiry' AND OLD.kind <> 'inquiry') THEN
        RAISE EXCEPTION 'dispute % cannot move from % to %', OLD.dispute_id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'disputes_legal_move';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_dispute BEFORE UPDATE ON disputes FOR EACH ROW EXECUTE FUNCTION guard_dispute();

ALTER TABLE payments ADD COLUMN IF NOT EXISTS live boolean;
COMMENT ON COLUMN payments.live IS 'real money, or test money, as its account was when it was started; null: started before this was kept';

-- The aggregate: orders with their payments, what is pending, and their history. Constraints repeat the rules of core/.

CREATE TABLE orders (
    order_no             text        PRIMARY KEY,
    amount               bigint      NOT NULL CHECK (amount > 0),
    currency             text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    subject              text        NOT NULL,
    status               text        NOT NULL CHECK (status IN ('created', 'paying', 'paid', 'closed')),
    version              integer     NOT NULL CHECK (version >= 1),
    page_token           text        NOT NULL UNIQUE,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL DEFAULT now(),
    expires_at           timestamptz NOT NULL,
    handed_off_at        timestamptz,
    paid_by_account      text,
    paid_by_out_trade_no text,
    paid_at              timestamptz,
    closed_at            timestamptz,
    notify_url           text,
    return_url           text,
    metadata             jsonb       NOT NULL DEFAULT '{}',
    CHECK ((status = 'paid') = (paid_at IS NOT NULL AND paid_by_account IS NOT NULL AND paid_by_out_trade_no IS NOT NULL)),
    CHECK (status <> 'closed' OR closed_at IS NOT NULL)
);
COMMENT ON COLUMN orders.version IS 'optimistic lock of the order and of its payments; the number of its newest event';
COMMENT ON COLUMN orders.amount IS 'minor units of the currency';
COMMENT ON COLUMN orders.page_token IS '128 random bits: who has it may look at this order and no other';
COMMENT ON COLUMN orders.handed_off_at IS 'when the user could first go to pay; from then on the public reads "processing"';

CREATE INDEX orders_by_time ON orders (created_at, order_no);

-- The last line of defence: whatever code runs, a version moves by one and a paid order stays paid.
CREATE FUNCTION guard_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'order % cannot move from version % to %', OLD.order_no, OLD.version, NEW.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_version_step';
    END IF;
    IF NEW.status <> OLD.status AND NOT (
           (OLD.status = 'created' AND NEW.status IN ('paying', 'paid', 'closed'))
        OR (OLD.status = 'paying'  AND NEW.status IN ('paid', 'closed'))
        OR (OLD.status = 'closed'  AND NEW.status = 'paid')) THEN
        RAISE EXCEPTION 'order % cannot move from % to %', OLD.order_no, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_legal_move';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_order BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION guard_order();

CREATE TABLE payments (
    channel_account        text        NOT NULL CHECK (channel_account <> ''),
    out_trade_no           text        NOT NULL,
    order_no               text        NOT NULL REFERENCES orders,
    attempt_no             integer     NOT NULL CHECK (attempt_no >= 1),
    method                 text        NOT NULL DEFAULT '',
    origin                 text        NOT NULL CHECK (origin IN ('ours', 'watched')),
    amount                 bigint      NOT NULL CHECK (amount > 0),
    currency               text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    status                 text        NOT NULL CHECK (status IN ('open', 'paid', 'closed')),
    checkout               jsonb,
    channel_reference      text,
    channel_transaction_id text,
    payable_until          timestamptz NOT NULL,
    created_at             timestamptz NOT NULL,
    paid_at                timestamptz,
    refunded_amount        bigint      NOT NULL DEFAULT 0 CHECK (refunded_amount >= 0),
    close_attempted_at     timestamptz,
    refused_at             timestamptz,
    PRIMARY KEY (channel_account, out_trade_no),
    UNIQUE (order_no, attempt_no),
    CHECK ((status = 'paid') = (paid_at IS NOT NULL AND channel_transaction_id IS NOT NULL))
);
COMMENT ON COLUMN payments.out_trade_no IS 'our number for this attempt at the channel, unique for ever';
COMMENT ON COLUMN payments.channel_reference IS 'what to query by when it is not our number';
COMMENT ON COLUMN payments.payable_until IS 'the last moment at which the channel can take money';
COMMENT ON COLUMN payments.refused_at IS 'the channel refused to create it: with a verified "missing" that is definite';
COMMENT ON COLUMN payments.close_attempted_at IS 'the channel answered our request to close it';

-- Two payments that claim one channel payment are a case, never two paid orders.
CREATE UNIQUE INDEX payments_transaction ON payments (channel_account, channel_transaction_id)
    WHERE channel_transaction_id IS NOT NULL;

CREATE FUNCTION guard_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> OLD.status AND NOT (
           (OLD.status = 'open'   AND NEW.status IN ('paid', 'closed'))
        OR (OLD.status = 'closed' AND NEW.status = 'paid')) THEN
        RAISE EXCEPTION 'payment % cannot move from % to %', OLD.out_trade_no, OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_legal_move';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_payment BEFORE UPDATE ON payments FOR EACH ROW EXECUTE FUNCTION guard_payment();

-- The temporary table: a row exists exactly while something is unresolved. The sweep reads only this one, never orders.
CREATE TABLE pending (
    channel_account text        NOT NULL,
    out_trade_no    text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('query', 'deadline')),
    order_no        text        NOT NULL REFERENCES orders,
    attempt         integer     NOT NULL,
    arm_no          integer     NOT NULL CHECK (arm_no >= 1),
    due_at          timestamptz NOT NULL,
    leased_at       timestamptz,
    leased_until    timestamptz,
    answered_from   timestamptz,
    PRIMARY KEY (channel_account, out_trade_no),
    CHECK ((kind = 'deadline') = (channel_account = '')),
    CHECK (kind = 'query' OR out_trade_no = order_no)
) WITH (fillfactor = 70);
COMMENT ON TABLE pending IS 'query: a payment to be asked about. deadline: an order to be closed (account empty, number = order_no)';
COMMENT ON COLUMN pending.attempt IS 'which of the n² attempts is due; 0 and below are early queries';
COMMENT ON COLUMN pending.arm_no IS 'grows with every scheduling; the job id ends in it';
COMMENT ON COLUMN pending.leased_until IS 'somebody is asking the channel until then: one query per payment at a time';
COMMENT ON COLUMN pending.answered_from IS 'when the last completed query began: who asked before that has what there was to learn';

CREATE INDEX pending_due ON pending (due_at);
CREATE INDEX pending_by_order ON pending (order_no);

-- Append-only. The version is the event number, so audit and the Last-Event-ID of a page are one thing.
CREATE TABLE order_events (
    order_no        text        NOT NULL REFERENCES orders,
    version         integer     NOT NULL,
    kind            text        NOT NULL,
    by              text        NOT NULL,
    channel_account text,
    out_trade_no    text,
    evidence        jsonb,
    note            text        NOT NULL DEFAULT '',
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_no, version)
);

-- What was seen without changing anything. Partitioned by day, so that old days are dropped and not deleted.
CREATE TABLE observations (
    order_no        text        NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind            text        NOT NULL,
    by              text        NOT NULL,
    channel_account text,
    out_trade_no    text,
    note            text        NOT NULL DEFAULT ''
) PARTITION BY RANGE (at);
CREATE INDEX observations_by_order ON observations (order_no, at);
CREATE TABLE observations_default PARTITION OF observations DEFAULT;

CREATE TABLE cases (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_no        text,
    channel_account text,
    out_trade_no    text,
    reason          text        NOT NULL,
    detail          text        NOT NULL DEFAULT '',
    opened_at       timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    resolution      text,
    by              text
);
COMMENT ON TABLE cases IS 'questions for a person: doubt is a case beside the status, not a status';
CREATE UNIQUE INDEX cases_open ON cases (coalesce(order_no, ''), coalesce(channel_account, ''), coalesce(out_trade_no, ''), reason)
    WHERE resolved_at IS NULL;
CREATE INDEX cases_by_order ON cases (order_no);

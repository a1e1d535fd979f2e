-- Callbacks that were refused: a bounded record for people, beside the inbox. No decision reads it.

CREATE TABLE refused_callbacks (
    id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    channel_account text        NOT NULL,
    verdict         text        NOT NULL CHECK (verdict IN ('forged', 'stale', 'not_verifiable', 'unknown_account')),
    detail          text        NOT NULL DEFAULT '',
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    copies          bigint      NOT NULL DEFAULT 1 CHECK (copies > 0),
    out_trade_no    text,
    order_no        text,
    body_hash       bytea       NOT NULL CHECK (length(body_hash) = 32),
    body_bytes      integer     NOT NULL,
    network         text        NOT NULL DEFAULT '',
    headers         jsonb       NOT NULL DEFAULT '{}',
    body            bytea,
    sealed_under    text,
    CHECK ((out_trade_no IS NULL) = (order_no IS NULL)),
    UNIQUE (channel_account, verdict, body_hash)
);
COMMENT ON COLUMN refused_callbacks.channel_account IS 'empty: there was no such account';
COMMENT ON COLUMN refused_callbacks.detail IS 'the adapter''s code; of an unknown account its name, if it can be one';
COMMENT ON COLUMN refused_callbacks.out_trade_no IS 'a payment of the account that the body names without proving anything';
COMMENT ON COLUMN refused_callbacks.body_hash IS 'SHA-256 of the raw body';
COMMENT ON COLUMN refused_callbacks.network IS 'where it came from: 24 bits of an address, 48 of IPv6';
COMMENT ON COLUMN refused_callbacks.body IS 'its first bytes, sealed; only of the newest few of an account';
CREATE INDEX refused_by_payment ON refused_callbacks (channel_account, out_trade_no, received_at);
CREATE INDEX refused_by_order ON refused_callbacks (order_no) WHERE order_no IS NOT NULL;
CREATE INDEX refused_by_account ON refused_callbacks (channel_account, received_at, id);
CREATE INDEX refused_by_time ON refused_callbacks (received_at, id);

CREATE TABLE refused_counts (
    channel_account text        NOT NULL,
    verdict         text        NOT NULL,
    count           bigint      NOT NULL CHECK (count > 0),
    last_at         timestamptz NOT NULL,
    PRIMARY KEY (channel_account, verdict)
);
COMMENT ON TABLE refused_counts IS 'all callbacks that were refused, since the beginning; refused_callbacks has some of them';

-- The inbox (callbacks of the channels) and the outbox (notifications to the merchant).

CREATE TABLE callbacks (
    id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    channel_account text        NOT NULL,
    notification_id text        NOT NULL,
    body_hash       bytea       NOT NULL CHECK (length(body_hash) = 32),
    received_at     timestamptz NOT NULL,
    copies          integer     NOT NULL DEFAULT 1,
    headers         jsonb       NOT NULL,
    body            bytea       NOT NULL,
    evidence        jsonb       NOT NULL,
    out_trade_no    text        NOT NULL,
    attempt         integer     NOT NULL DEFAULT 1,
    arm_no          integer     NOT NULL DEFAULT 1,
    due_at          timestamptz NOT NULL,
    leased_until    timestamptz,
    handled_at      timestamptz,
    dead_at         timestamptz,
    outcome         text,
    UNIQUE (channel_account, notification_id, body_hash)
);
COMMENT ON COLUMN callbacks.body_hash IS 'SHA-256 of the raw body';
COMMENT ON COLUMN callbacks.copies IS 'how often the same message arrived';
COMMENT ON COLUMN callbacks.evidence IS 'what it says, read when its signature had been verified';
COMMENT ON COLUMN callbacks.handled_at IS 'set only after the work is done: a repeat after a failed handling is work, not a duplicate';
COMMENT ON COLUMN callbacks.dead_at IS 'given up after the last attempt; a case is open';
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE handled_at IS NULL AND dead_at IS NULL;
CREATE INDEX callbacks_by_payment ON callbacks (channel_account, out_trade_no);

CREATE TABLE notifications (
    id            text        PRIMARY KEY,
    order_no      text        NOT NULL REFERENCES orders,
    version       integer     NOT NULL,
    type          text        NOT NULL,
    url           text        NOT NULL,
    body          bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    attempt       integer     NOT NULL DEFAULT 1,
    arm_no        integer     NOT NULL DEFAULT 1,
    due_at        timestamptz NOT NULL DEFAULT now(),
    leased_until  timestamptz,
    delivered_at  timestamptz,
    superseded_at timestamptz,
    dead_at       timestamptz,
    last_status   text,
    UNIQUE (order_no, version)
);
COMMENT ON COLUMN notifications.body IS 'the exact bytes of every delivery';
COMMENT ON COLUMN notifications.superseded_at IS 'a newer version of the order made this one pointless before it was heard';
COMMENT ON COLUMN notifications.last_status IS 'what the last attempt came to: an HTTP status or a short word';
CREATE INDEX notifications_due ON notifications (due_at)
    WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL;
CREATE INDEX notifications_dead ON notifications (dead_at) WHERE dead_at IS NOT NULL AND delivered_at IS NULL;

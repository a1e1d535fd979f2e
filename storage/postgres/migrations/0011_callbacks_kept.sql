-- Callbacks about payments that are unknown here, and counts of those that are not kept.

ALTER TABLE callbacks ADD COLUMN kept_until timestamptz;
COMMENT ON COLUMN callbacks.kept_until IS 'until then a payment is looked for; NULL: for a day from received_at';

CREATE TABLE callback_counts (
    channel_account text        NOT NULL,
    reason          text        NOT NULL,
    count           bigint      NOT NULL CHECK (count > 0),
    last_at         timestamptz NOT NULL,
    PRIMARY KEY (channel_account, reason)
);
COMMENT ON TABLE callback_counts IS 'genuine callbacks that were acknowledged and are not stored (any more)';
COMMENT ON COLUMN callback_counts.reason IS 'no_money and other_world: never stored; unknown: dropped after a day; unknown_account: parked in Redis, and its account did not come back';

-- Alerts: conditions that a person must hear of, and what is told of them; and what each process thinks of its clock.

CREATE TABLE alerts (
    id         text        PRIMARY KEY,
    key        text        NOT NULL CHECK (key <> ''),
    rule       text        NOT NULL,
    subject    text        NOT NULL,
    text       text        NOT NULL,
    looks      integer     NOT NULL CHECK (looks >= 0),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    raised_at  timestamptz,
    cleared_at timestamptz,
    CHECK (cleared_at IS NULL OR raised_at IS NOT NULL)
);
COMMENT ON COLUMN alerts.key IS 'the same for the same condition at each look; one alert of a key is open at a time';
COMMENT ON COLUMN alerts.looks IS 'looks in a row that saw the condition while it is not raised, or have not seen it since';
COMMENT ON COLUMN alerts.seen_at IS 'the first look that saw it';
COMMENT ON COLUMN alerts.raised_at IS 'null: not told yet, and gone without a word if it does not hold';

CREATE UNIQUE INDEX alerts_open ON alerts (key) WHERE cleared_at IS NULL;
CREATE INDEX alerts_by_time ON alerts (raised_at, id) WHERE raised_at IS NOT NULL;

-- An outbox, written in the statement that moves the alert.
CREATE TABLE alert_messages (
    id           text        PRIMARY KEY,
    position     bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    alert_id     text        REFERENCES alerts ON DELETE CASCADE,
    body         bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempt      integer     NOT NULL DEFAULT 1,
    due_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until timestamptz,
    sent_at      timestamptz,
    last_status  text
);
COMMENT ON COLUMN alert_messages.alert_id IS 'null: a test';
COMMENT ON COLUMN alert_messages.body IS 'the exact bytes of every delivery';

CREATE INDEX alert_messages_unsent ON alert_messages (position) WHERE sent_at IS NULL;
CREATE INDEX alert_messages_by_alert ON alert_messages (alert_id);

-- Orders are compared with the invariants a page at each look; this is where the last page ended.
CREATE TABLE alert_walk (
    is_one     boolean     PRIMARY KEY DEFAULT true CHECK (is_one),
    created_at timestamptz NOT NULL,
    order_no   text        NOT NULL
);

ALTER TABLE processes
    ADD COLUMN kind  text NOT NULL DEFAULT 'worker',
    ADD COLUMN clock text NOT NULL DEFAULT '';
COMMENT ON COLUMN processes.kind IS 'worker or web; processes of an earlier release are all called workers';
COMMENT ON COLUMN processes.clock IS 'state of its clock at its last beat; empty: it is of an earlier release';

-- Reconciliation: runs over a channel's statement, what a run has seen so far, and the differences that it found.

CREATE TABLE reconciliations (
    id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_account  text        NOT NULL CHECK (channel_account <> ''),
    day              date,
    statement_sha256 bytea       CHECK (length(statement_sha256) = 32),
    dry_run          boolean     NOT NULL,
    status           text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'failed', 'finished')),
    next_row         integer     NOT NULL DEFAULT 1 CHECK (next_row >= 1),
    counts           jsonb       NOT NULL DEFAULT '{}',
    attempt          integer     NOT NULL DEFAULT 1,
    due_at           timestamptz NOT NULL DEFAULT now(),
    leased_at        timestamptz,
    leased_until     timestamptz,
    last_error       text        NOT NULL DEFAULT '',
    started_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((status = 'finished') = (finished_at IS NOT NULL)),
    CHECK (day IS NOT NULL OR statement_sha256 IS NOT NULL)
);
COMMENT ON COLUMN reconciliations.day IS 'in the calendar of the channel; null: the statement was a file, and its hash names it';
COMMENT ON COLUMN reconciliations.next_row IS 'the first row of this very statement that is not done: where a killed run is carried on';
COMMENT ON COLUMN reconciliations.counts IS 'rows by what they came to, up to next_row';
COMMENT ON COLUMN reconciliations.started_at IS 'when its statement was last begun at the first row';
COMMENT ON COLUMN reconciliations.due_at IS 'a failed run of the daily job is tried again from then on';
COMMENT ON COLUMN reconciliations.leased_at IS 'token of whoever is at it until leased_until';

-- One run at a time for each day or file: whoever comes second waits, or carries on after a crash.
CREATE UNIQUE INDEX reconciliations_of_day ON reconciliations (channel_account, day, dry_run)
    WHERE finished_at IS NULL AND day IS NOT NULL;
CREATE UNIQUE INDEX reconciliations_of_file ON reconciliations (channel_account, statement_sha256, dry_run)
    WHERE finished_at IS NULL AND day IS NULL;
CREATE INDEX reconciliations_by_day ON reconciliations (channel_account, day, finished_at);

-- What the second direction ("paid here only") and repeated rows are found by, however long the statement is.
CREATE TABLE reconciliation_rows (
    reconciliation_id bigint  NOT NULL REFERENCES reconciliations ON DELETE CASCADE,
    out_trade_no      text    NOT NULL,
    part              text    NOT NULL,
    row_no            integer NOT NULL,
    PRIMARY KEY (reconciliation_id, out_trade_no, part)
);
COMMENT ON TABLE reconciliation_rows IS 'rows of payments that we know; of an ended run only those near midnight stay, for its neighbours';
COMMENT ON COLUMN reconciliation_rows.part IS 'empty: the money that came; otherwise one refund, by its number or its row';
COMMENT ON COLUMN reconciliation_rows.row_no IS 'the first row that tells of it';

CREATE TABLE reconciliation_refunded (
    reconciliation_id bigint NOT NULL REFERENCES reconciliations ON DELETE CASCADE,
    out_trade_no      text   NOT NULL,
    amount            bigint NOT NULL,
    PRIMARY KEY (reconciliation_id, out_trade_no)
);
COMMENT ON TABLE reconciliation_refunded IS 'what the statement has given back of a payment so far, each refund counted once; gone when the run ends';

CREATE TABLE reconciliation_differences (
    reconciliation_id      bigint  NOT NULL REFERENCES reconciliations ON DELETE CASCADE,
    row_no                 integer NOT NULL,
    kind                   text    NOT NULL,
    order_no               text,
    out_trade_no           text    NOT NULL,
    channel_transaction_id text    NOT NULL,
    detail                 text    NOT NULL,
    PRIMARY KEY (reconciliation_id, row_no, kind, out_trade_no)
);
COMMENT ON COLUMN reconciliation_differences.row_no IS 'of the statement, from 1; 0: the statement has no row for it';

CREATE INDEX payments_by_paid_at ON payments (channel_account, paid_at, out_trade_no) WHERE paid_at IS NOT NULL;
COMMENT ON INDEX payments_by_paid_at IS 'what was paid here on one day';
CREATE INDEX payments_by_reference ON payments (channel_account, channel_reference) WHERE channel_reference IS NOT NULL;
COMMENT ON INDEX payments_by_reference IS 'rows of statements that do not hold our number';

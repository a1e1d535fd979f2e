-- Days, cases and statements for operators: what an account took on a day and who signed it off, who works on a case,
-- and statements that an operator wants to be read.

-- The sums of a run's rows, by currency, and how many rows its statement has.
ALTER TABLE reconciliations
    ADD COLUMN sums jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN statement_rows integer CHECK (statement_rows >= 0);
COMMENT ON COLUMN reconciliations.sums IS 'money of the rows up to next_row, by currency, in minor units';
COMMENT ON COLUMN reconciliations.statement_rows IS 'rows of the statement; null: begun by an earlier version';

ALTER TABLE cases
    ADD COLUMN assignee    text CHECK (assignee <> ''),
    ADD COLUMN assigned_at timestamptz,
    ADD COLUMN version     integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN cases.assignee IS 'the operator who works on it';
COMMENT ON COLUMN cases.version IS 'optimistic lock of what people do with it';

CREATE TABLE closings (
    channel_account text        NOT NULL,
    day             date        NOT NULL,
    money           jsonb       NOT NULL,
    computed_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_account, day)
);
COMMENT ON TABLE closings IS 'what is known here of the money of a day; made anew by the worker, so it may be deleted';
COMMENT ON COLUMN closings.day IS 'in the calendar of the channel';
COMMENT ON COLUMN closings.money IS 'by currency, in minor units';
CREATE INDEX closings_by_day ON closings (day, channel_account);

CREATE TABLE sign_offs (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_account text        NOT NULL,
    day             date        NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    by              text        NOT NULL CHECK (by <> ''),
    note            text        NOT NULL,
    figures         jsonb       NOT NULL
);
COMMENT ON TABLE sign_offs IS 'append-only: the newest of a day counts';
COMMENT ON COLUMN sign_offs.figures IS 'the figures that were signed: where those of now differ, the day has changed since';
CREATE INDEX sign_offs_by_day ON sign_offs (channel_account, day, id);

CREATE FUNCTION guard_sign_off() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a sign-off is never changed'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'sign_offs_append_only';
END $$;
CREATE TRIGGER guard_sign_off BEFORE UPDATE OR DELETE ON sign_offs FOR EACH ROW EXECUTE FUNCTION guard_sign_off();

CREATE TABLE statement_files (
    channel_account text        NOT NULL,
    sha256          bytea       NOT NULL CHECK (length(sha256) = 32),
    sealed          bytea       NOT NULL,
    bytes           integer     NOT NULL CHECK (bytes > 0),
    uploaded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel_account, sha256)
);
COMMENT ON TABLE statement_files IS 'statements that an operator uploaded, until they are read; a day at most';
COMMENT ON COLUMN statement_files.sealed IS 'key id, nonce and AES-256-GCM ciphertext of the file: it names buyers';
CREATE INDEX statement_files_by_time ON statement_files (uploaded_at);

CREATE TABLE statement_requests (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_account text        NOT NULL,
    day             date        NOT NULL,
    dry_run         boolean     NOT NULL,
    sha256          bytea       CHECK (length(sha256) = 32),
    requested_by    text        NOT NULL CHECK (requested_by <> ''),
    requested_at    timestamptz NOT NULL DEFAULT now(),
    reason          text        NOT NULL DEFAULT '',
    status          text        NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'running', 'done', 'failed')),
    leased_at       timestamptz,
    leased_until    timestamptz,
    rows_done       integer     NOT NULL DEFAULT 0,
    rows            integer,
    run_id          bigint      REFERENCES reconciliations,
    error           text        NOT NULL DEFAULT '',
    ended_at        timestamptz,
    CHECK ((status IN ('done', 'failed')) = (ended_at IS NOT NULL))
);
COMMENT ON TABLE statement_requests IS 'statements that an operator wants to be read, which a worker does';
COMMENT ON COLUMN statement_requests.dry_run IS 'a preview: it is compared and nothing changes';
COMMENT ON COLUMN statement_requests.sha256 IS 'of the uploaded file; null: the statement is fetched from the channel';
COMMENT ON COLUMN statement_requests.error IS 'for the operator: why it was refused or failed';
CREATE INDEX statement_requests_open ON statement_requests (requested_at, id) WHERE ended_at IS NULL;
CREATE INDEX statement_requests_by_day ON statement_requests (channel_account, day, id);

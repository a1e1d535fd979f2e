-- Duties: periodic work that one worker does for all of them. A row is made by whoever does the duty first.

CREATE TABLE duties (
    name         text        PRIMARY KEY,
    due_at       timestamptz NOT NULL DEFAULT now(),
    leased_at    timestamptz,
    leased_until timestamptz,
    leased_by    text,
    CHECK ((leased_at IS NULL) = (leased_until IS NULL)),
    CHECK (leased_at IS NULL OR leased_by IS NOT NULL)
);
COMMENT ON COLUMN duties.leased_at IS 'the token of the lease';
COMMENT ON COLUMN duties.leased_by IS 'the process of the last lease; a lease ends with its row in processes';

ALTER TABLE processes ADD COLUMN protocol smallint NOT NULL DEFAULT 1;
COMMENT ON COLUMN processes.protocol IS 'what the process shares with others in Redis: 1 counts the calls of all accounts under one hash tag, 2 under one for each account';

-- Which deployment this database is, so that two of them notice when they share one Redis.

CREATE TABLE identity (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id      uuid NOT NULL DEFAULT gen_random_uuid()
);
COMMENT ON TABLE identity IS 'one row, made here: a restored copy of this database is the same deployment';
COMMENT ON COLUMN identity.is_only IS 'allows one row alone';

INSERT INTO identity DEFAULT VALUES;

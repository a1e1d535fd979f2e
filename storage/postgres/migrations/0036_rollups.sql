-- Roll-ups: sums of what happened, by buckets of five minutes, hours and days, for the console and its alerts; and what
-- the processes count for them.

CREATE TABLE rollups (
    step        integer     NOT NULL CHECK (step IN (300, 3600, 86400)),
    at          timestamptz NOT NULL,
    scope       text        NOT NULL CHECK (scope IN ('all', 'account', 'endpoint')),
    name        text        NOT NULL,
    figures     jsonb       NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (step, at, scope, name),
    CHECK (extract(epoch FROM at)::bigint % step = 0),
    CHECK ((scope = 'all') = (name = '') OR scope = 'endpoint')
);
COMMENT ON TABLE rollups IS 'computed whole and replaced by the worker; a bucket that was computed has a row of the scope all';
COMMENT ON COLUMN rollups.step IS 'length of the bucket in seconds';
COMMENT ON COLUMN rollups.at IS 'begin of the bucket, UTC';
COMMENT ON COLUMN rollups.name IS 'the account, or the URL of the endpoint without its query; empty: all, or further endpoints';
COMMENT ON COLUMN rollups.figures IS 'sums by key: core/rollups.py has the keys';

CREATE TABLE tallies (
    source  text        NOT NULL,
    number  integer     NOT NULL,
    scope   text        NOT NULL CHECK (scope IN ('account', 'endpoint')),
    name    text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    figures jsonb       NOT NULL,
    PRIMARY KEY (source, number, scope, name)
);
COMMENT ON TABLE tallies IS 'what each process counted since it wrote last; kept until the roll-ups have it';
COMMENT ON COLUMN tallies.source IS 'the process, by a token of its own';
COMMENT ON COLUMN tallies.number IS 'its writings count up: one whose answer was lost is written again under the same number, and once';
CREATE INDEX tallies_by_time ON tallies (at);

-- Open cases of one reason by age: a rare one is found among many of another, and the oldest few of each are read alone.
-- The second condition is true of every row, and only statements that name it use the index.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_open_by_reason ON cases (reason, opened_at, id)
    WHERE resolved_at IS NULL AND id > 0;

-- Open cases by age, with what they are counted and chosen by. The second condition is true of every row, and only the
-- inbox names it: a look-up by key must not read all open cases, whatever the planner takes the table for.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_open_by_time ON cases (opened_at, id) INCLUDE (reason, assignee)
    WHERE resolved_at IS NULL AND id > 0;

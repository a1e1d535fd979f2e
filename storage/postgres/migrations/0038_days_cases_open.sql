-- Open cases by age, with what they are counted and chosen by.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_open_by_time ON cases (opened_at, id) INCLUDE (reason, assignee)
    WHERE resolved_at IS NULL;

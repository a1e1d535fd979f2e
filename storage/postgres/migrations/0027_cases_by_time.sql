-- Cases by age: operators list the newest first, page by page.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cases_by_time ON cases (opened_at, id);

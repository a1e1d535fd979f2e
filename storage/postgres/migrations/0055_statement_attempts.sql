-- A request whose statement breaks a worker is not begun for ever.
ALTER TABLE statement_requests ADD COLUMN attempt integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN statement_requests.attempt IS 'how often it was begun; waiting for another process on the same day is none';

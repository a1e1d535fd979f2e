-- Every attempt of a notification, notifications that wait for their endpoint or their turn, and endpoints that people
-- have paused.

ALTER TABLE notifications
    ADD COLUMN attempts        jsonb,
    ADD COLUMN held_at         timestamptz,
    ADD COLUMN resending_since timestamptz;
COMMENT ON COLUMN notifications.attempts IS 'deliveries that were tried, oldest first, at most the newest fifty: no, at, latency_ms, status, answer, is_manual; NULL: none';
COMMENT ON COLUMN notifications.held_at IS 'since then it waits: for a person who resumes its endpoint, or for its turn among many that are sent again; a claim ends it';
COMMENT ON COLUMN notifications.resending_since IS 'a person has sent it again, whatever became of it before; NULL once that has ended';

CREATE TABLE paused_endpoints (
    endpoint  text        PRIMARY KEY CHECK (endpoint <> ''),
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_by text        NOT NULL CHECK (paused_by <> ''),
    reason    text        NOT NULL DEFAULT ''
);
COMMENT ON TABLE paused_endpoints IS 'nothing is sent to these; to resume one is to delete its row';
COMMENT ON COLUMN paused_endpoints.endpoint IS 'a notify_url without its query and fragment';

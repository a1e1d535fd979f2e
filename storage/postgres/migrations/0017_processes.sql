-- Worker processes that take leases, and by whom a row is leased: what a killed worker was at is taken over.

CREATE TABLE processes (
    name text   PRIMARY KEY,
    beat bigint NOT NULL DEFAULT 1
);
COMMENT ON COLUMN processes.beat IS 'counted up by the process about once a second; others that see it stand still take its leases over';

ALTER TABLE pending ADD COLUMN leased_by text;
ALTER TABLE callbacks ADD COLUMN leased_by text;
ALTER TABLE notifications ADD COLUMN leased_by text;
COMMENT ON COLUMN pending.leased_by IS 'the process of the last lease; null: that lease is not taken over, whoever had it';
COMMENT ON COLUMN callbacks.leased_by IS 'as in pending';
COMMENT ON COLUMN notifications.leased_by IS 'as in pending';

-- What people do, in rows that the application's own role only adds and reads; and the DDL of observations, which that
-- role may not run, as functions of the owner. The release step grants what the application's role needs.

CREATE TABLE audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by      text        NOT NULL CHECK (by <> ''),
    via     text        NOT NULL CHECK (via IN ('command', 'api')),
    action  text        NOT NULL CHECK (action <> ''),
    subject text        NOT NULL DEFAULT '',
    detail  jsonb       NOT NULL DEFAULT '{}',
    role    text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE audit IS 'written before the act: what then failed is in it too';
COMMENT ON COLUMN audit.by IS 'the person as they named themselves, the user of the machine, or the id of an API key';
COMMENT ON COLUMN audit.action IS 'the words of a command, or the operation id of the API';
COMMENT ON COLUMN audit.subject IS 'the order, account, key, host or case that it is about';

CREATE FUNCTION make_observations(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '2s' AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I PARTITION OF observations FOR VALUES FROM (%L) TO (%L)',
                   'observations_' || to_char(day, 'YYYYMMDD'),
                   to_char(day, 'YYYY-MM-DD"T00:00:00Z"'), to_char(day + 1, 'YYYY-MM-DD"T00:00:00Z"'));
END $$;

-- Rows of the day leave before the partition is attached: Postgres refuses it while the default one has any.
CREATE FUNCTION move_observations(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '2s' AS $$
DECLARE
    name  text := 'observations_' || to_char(day, 'YYYYMMDD');
    since text := to_char(day, 'YYYY-MM-DD"T00:00:00Z"');
    until text := to_char(day + 1, 'YYYY-MM-DD"T00:00:00Z"');
BEGIN
    LOCK TABLE observations IN SHARE UPDATE EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE observations INCLUDING DEFAULTS)', name);
    EXECUTE format('WITH moved AS (DELETE FROM observations_default WHERE at >= %L AND at < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', since, until, name);
    EXECUTE format('ALTER TABLE observations ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, until);
END $$;

-- The lock that a drop takes anyway, taken before the partition is looked up by name: of two processes that drop it, the
-- second could otherwise find it without its parent.
CREATE FUNCTION drop_observations(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '2s' AS $$
BEGIN
    LOCK TABLE observations IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DROP TABLE IF EXISTS %I', 'observations_' || to_char(day, 'YYYYMMDD'));
END $$;

-- They run with the owner's rights, so they must find nothing of a caller's, and not everybody may call them.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['make_observations', 'move_observations', 'drop_observations'] LOOP
        EXECUTE format('ALTER FUNCTION %I(date) SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %I(date) FROM PUBLIC', name);
    END LOOP;
END $$;

-- Rows of the audit end once they are older than a setting says, and than a year in any case: by one function of the
-- owner, which the application's role may call. Everything else that would change or delete rows is still refused.

CREATE FUNCTION refuse_delete_of_act() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('nodrop.deletes_old_acts', true), '') <> 'yes' OR OLD.at > now() - interval '365 days' THEN
        RAISE EXCEPTION 'rows of % are added, and neither changed nor deleted', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;

CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_of_act();
DROP TRIGGER audit_only_grows ON audit;
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION delete_old_acts(keep_days integer, at_most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '2s' AS $$
DECLARE
    until   timestamptz := now() - make_interval(days => greatest(keep_days, 365));
    deleted integer;
BEGIN
    PERFORM set_config('nodrop.deletes_old_acts', 'yes', true);
    DELETE FROM audit WHERE id = ANY(ARRAY(SELECT id FROM audit WHERE at < until ORDER BY at, id LIMIT at_most));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('nodrop.deletes_old_acts', '', true);
    RETURN deleted;
END $$;

-- It runs with the owner's rights, so it must find nothing of a caller's, and not everybody may call it.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION delete_old_acts(integer, integer) SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION delete_old_acts(integer, integer) FROM PUBLIC;
END $$;

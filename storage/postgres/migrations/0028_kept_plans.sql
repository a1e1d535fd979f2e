-- A pooler that keeps no prepared statements for its clients gives a statement to any session of the server. This function
-- lets that session prepare it, under a name of its content, and keep its plan: planning costs more than running. It has
-- the rights of its caller, who could run the statement as well.
CREATE FUNCTION run_kept(name text, statement text, arguments text[]) RETURNS text LANGUAGE plpgsql
    SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    result text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_prepared_statements p WHERE p.name = run_kept.name) THEN
        EXECUTE format('PREPARE %I AS %s', name, statement);
    END IF;
    EXECUTE format('EXECUTE %I (%s)', name, (SELECT string_agg(quote_nullable(a), ', ') FROM unnest(arguments) AS a))
       INTO result;
    RETURN result;
END $$;

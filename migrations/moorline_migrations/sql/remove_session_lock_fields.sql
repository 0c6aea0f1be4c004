-- Undoes add_session_lock_fields.sql on the first conversation_states in the search_path: drops the columns, indexes
-- and triggers that it added, completely or not at all. It may be run any number of times.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c '\i remove_session_lock_fields.sql'
--
-- The backend's own columns and all rows stay, including rows that Moorline inserted. A widened column stays wide.
-- Refused while Moorline's own tables are there: they are useless without these columns.

DO $remove$
DECLARE
    states regclass := pg_catalog.to_regclass('conversation_states');
    home   name := (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = states::oid);
    item   record;
BEGIN
    -- From here on only pg_catalog is searched; all other names carry their schema.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF states IS NULL THEN
        RETURN;
    END IF;
    IF to_regclass(format('%I.moorline_schema', home)) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = format('Moorline''s own tables are in schema %I', home),
            HINT = 'Run remove_moorline.sql first: it deletes them, with every conversation in them.';
    END IF;
    PERFORM set_config('lock_timeout', '3s', true);
    FOR item IN
        SELECT 1 AS place, format('DROP TRIGGER %I ON %s', t.tgname, states) AS statement
            FROM pg_trigger t
            WHERE t.tgrelid = states AND t.tgname IN ('moorline_follow_key', 'moorline_time_lock')
        UNION ALL
        SELECT 2, format('DROP FUNCTION %s', p.oid::regprocedure)
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = home AND p.proname IN ('moorline_follow_key', 'moorline_time_lock')
        UNION ALL
        SELECT 3, format('DROP INDEX %s', i.indexrelid::regclass)
            FROM pg_index i
            WHERE i.indrelid = states AND obj_description(i.indexrelid, 'pg_class') LIKE 'Added by Moorline:%'
        UNION ALL
        SELECT 4, format('ALTER TABLE %s DROP COLUMN %I', states, a.attname)
            FROM pg_attribute a
            WHERE a.attrelid = states AND col_description(states, a.attnum) LIKE 'Added by Moorline:%'
        ORDER BY place
    LOOP
        EXECUTE item.statement;
    END LOOP;
END
$remove$;

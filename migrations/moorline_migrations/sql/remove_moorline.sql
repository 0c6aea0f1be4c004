-- Deletes Moorline's own tables, view and functions from the first schema in the search_path that has them, WITH EVERY
-- CONVERSATION AND APPOINTMENT IN THEM, completely or not at all. It may be run any number of times. It also deletes
-- the tables of an unreleased version.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c '\i remove_moorline.sql'
--
-- A conversation_states that a backend had before stays as it is; remove_session_lock_fields.sql then removes
-- Moorline's columns from it. Refused while a component of your own has tables here: only you know which they are.

DO $remove$
DECLARE
    marker regclass := pg_catalog.to_regclass('moorline_schema');
    home   name := (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = marker::oid);
    core   boolean := true;
    booked boolean;
    others text;
    item   record;
BEGIN
    IF marker IS NULL THEN
        RETURN;
    END IF;
    -- Our tables are found by their bare names; everything else is written so that nothing planted is run.
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true),
        pg_catalog.set_config('search_path', pg_catalog.quote_ident(home::text), true),
        pg_catalog.set_config('client_min_messages', 'warning', true);

    -- Tables of a component that was never applied are not ours, whatever they are called.
    IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = marker::oid AND a.attname = 'component') THEN
        core := EXISTS (SELECT FROM moorline_schema s WHERE s.component = 'moorline');
        booked := EXISTS (SELECT FROM moorline_schema s WHERE s.component = 'scheduling');
        others := (
            SELECT pg_catalog.string_agg(DISTINCT s.component, ', ')
                FROM moorline_schema s WHERE s.component NOT IN ('moorline', 'scheduling'));
        IF others IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'ML001',
                MESSAGE = pg_catalog.format('schema %s holds tables of other components: %s', home, others),
                HINT = 'Drop their tables and functions, delete their rows from moorline_schema, then run this again.';
        END IF;
    ELSE
        booked := EXISTS (SELECT FROM moorline_schema s WHERE s.version = 2);
    END IF;

    IF booked THEN
        DROP FUNCTION IF EXISTS scheduling_erase, scheduling_export;
        DROP TABLE appointments, appointment_closures, appointment_hours, appointment_offers, appointment_providers,
            appointment_services;
    END IF;
    FOR item IN
        SELECT p.oid::regprocedure AS function FROM pg_proc p
            WHERE p.pronamespace = pg_catalog.quote_ident(home::text)::regnamespace::oid
                AND p.proname::text LIKE 'moorline\_%' AND p.prorettype <> 'trigger'::regtype::oid
    LOOP
        EXECUTE pg_catalog.format('DROP FUNCTION %s', item.function);
    END LOOP;
    IF core THEN
        DROP VIEW expired_sessions;
        DROP VIEW IF EXISTS turn_figures;
        DROP TABLE conversation_messages, conversation_turns, conversation_checkpoints, conversation_values,
            conversation_writes, conversation_effects;
        DROP TABLE IF EXISTS conversation_sessions, conversation_days, conversation_facts, conversation_files;
        DROP TABLE IF EXISTS moorline_keys, moorline_revocations, moorline_cleanups, moorline_days, moorline_people,
            moorline_codes, moorline_tries;
        DROP SEQUENCE IF EXISTS conversation_fences;
        IF pg_catalog.obj_description(pg_catalog.to_regclass('conversation_states')::oid, 'pg_class')
            LIKE 'Made by Moorline:%'
        THEN
            DROP TABLE conversation_states;
        END IF;
    END IF;
    DROP TABLE moorline_schema;
END
$remove$;

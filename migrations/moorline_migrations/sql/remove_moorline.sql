-- Deletes Moorline's own tables, view, sequence and functions from the first schema of the search_path that has them,
-- WITH EVERY CONVERSATION AND APPOINTMENT IN THEM, as a whole or not at all. May be run any number of times.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c '\i remove_moorline.sql'
--
-- A conversation_states that a backend had before stays as it is; remove_session_lock_fields.sql then takes Moorline's
-- columns out of it.

DO $remove$
DECLARE
    marker regclass := to_regclass('moorline_schema');
    home   name := (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = marker);
    item   record;
BEGIN
    IF marker IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', '3s', true), set_config('search_path', quote_ident(home), true);
    FOR item IN
        SELECT p.oid::regprocedure AS function FROM pg_proc p
            WHERE p.pronamespace = quote_ident(home)::regnamespace
                AND p.proname LIKE 'moorline\_%' AND p.prorettype <> 'trigger'::regtype
    LOOP
        EXECUTE format('DROP FUNCTION %s', item.function);
    END LOOP;
    DROP VIEW expired_sessions;
    -- Without version 2 a table of that name is not ours.
    IF EXISTS (SELECT FROM moorline_schema WHERE version = 2) THEN
        DROP TABLE appointments, appointment_closures, appointment_hours, appointment_offers, appointment_providers,
            appointment_services;
    END IF;
    DROP TABLE conversation_messages, conversation_turns, conversation_checkpoints, conversation_values,
        conversation_writes, conversation_effects;
    DROP SEQUENCE conversation_fences;
    DROP TABLE moorline_schema;
    IF obj_description(to_regclass('conversation_states'), 'pg_class') LIKE 'Made by Moorline:%' THEN
        DROP TABLE conversation_states;
    END IF;
END
$remove$;

-- One runner at a time; the others wait here. Lock and time-outs end with the transaction.
SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '60s', true);
SELECT pg_advisory_xact_lock(hashtextextended('moorline migrations of @schema', 0));

-- A table that the application holds is not waited for any longer: all others would queue up behind us.
SELECT set_config('lock_timeout', '3s', true);

-- No other schema is looked at, and none is changed.
SELECT set_config('search_path', '@schema', true);

-- Asked first: CREATE … IF NOT EXISTS needs the right to create even where there is nothing to create.
DO $$
BEGIN
    IF to_regnamespace('@schema') IS NULL THEN
        CREATE SCHEMA @schema;
    END IF;
    IF to_regclass('@schema.moorline_schema') IS NULL THEN
        CREATE TABLE @schema.moorline_schema (
            component       text,
            version         integer,
            name            text NOT NULL,
            oldest_code     integer NOT NULL,
            erase_function  text,
            export_function text,
            applied_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (component, version)
        );
    END IF;
END
$$;

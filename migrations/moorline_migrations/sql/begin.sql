-- Only pg_catalog is searched, and all other names carry their schema: otherwise what others created in a schema of the
-- search_path would run with our rights. Like every setting here, this ends with the transaction.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- One runner at a time; the others wait here. The lock ends with the transaction, too.
SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '60s', true);
SELECT pg_advisory_xact_lock(hashtextextended('moorline migrations of @schema', 0));

-- Wait no longer than this for a table that the application holds: everybody else would queue up behind us.
SELECT set_config('lock_timeout', '3s', true);

-- Check first: CREATE … IF NOT EXISTS needs the right to create even if there is nothing to create.
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

-- The rights of moorline_app in an embedded database, given by its superuser after the migrations: the rows of all tables
-- in the schema, which is Moorline's and its agents' alone, but not the records of migrations and keys, nor the row by
-- which cleanups take turns, and not the catalogue of appointments, which models are told.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('moorline roles', 0));

GRANT USAGE ON SCHEMA @schema TO moorline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA @schema TO moorline_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA @schema TO moorline_app;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA @schema TO moorline_app;
REVOKE INSERT, UPDATE, DELETE ON @schema.moorline_schema, @schema.moorline_keys FROM moorline_app;
REVOKE INSERT, DELETE ON @schema.moorline_cleanups FROM moorline_app;

DO $$
BEGIN
    IF pg_catalog.to_regprocedure('@schema.scheduling_erase(text)') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON
            @schema.appointment_services,
            @schema.appointment_providers,
            @schema.appointment_offers,
            @schema.appointment_hours,
            @schema.appointment_closures
        FROM moorline_app;
    END IF;
END
$$;

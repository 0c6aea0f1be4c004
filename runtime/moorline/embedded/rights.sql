-- The rights of moorline_app in an embedded database, given by its superuser after the migrations: the rows of all tables
-- in the schema, which is Moorline's and its agents' alone, but not the records of migrations and keys.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('moorline roles', 0));

GRANT USAGE ON SCHEMA @schema TO moorline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA @schema TO moorline_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA @schema TO moorline_app;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA @schema TO moorline_app;
REVOKE INSERT, UPDATE, DELETE ON @schema.moorline_schema, @schema.moorline_keys FROM moorline_app;

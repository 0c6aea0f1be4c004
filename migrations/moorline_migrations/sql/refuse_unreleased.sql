-- An unreleased version made other tables under the same names. It is recognised by a moorline_schema without
-- components.
DO $$
BEGIN
    IF pg_catalog.to_regclass('@schema.moorline_schema') IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = pg_catalog.to_regclass('@schema.moorline_schema')::oid AND a.attname = 'component'::name)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = 'an unreleased version of Moorline made the tables in schema @schema; they cannot be carried over',
            HINT = 'Keep them and set MOORLINE_SCHEMA to another schema (or MOORLINE_DATA to another folder, where the'
                ' database is the embedded one); or delete them, with every conversation in them, by running'
                ' remove_moorline.sql with psql. Then run `moorline migrate`.';
    END IF;
END
$$;

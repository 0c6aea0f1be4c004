-- The roles of an embedded database, made by its superuser at each start: moorline_owner migrates and owns what is in the
-- schema, moorline_app runs the application and may neither change the schema nor reach the machine. Run before the
-- migrations.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('moorline roles', 0));

DO $$
DECLARE
    found record;
BEGIN
    IF to_regrole('moorline_owner') IS NULL THEN
        CREATE ROLE moorline_owner LOGIN;
    END IF;
    IF to_regrole('moorline_app') IS NULL THEN
        CREATE ROLE moorline_app LOGIN;
    END IF;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO moorline_owner', current_database());
    IF to_regnamespace('@schema') IS NULL THEN
        RETURN;
    END IF;
    GRANT CREATE, USAGE ON SCHEMA @schema TO moorline_owner;
    -- What an earlier version made as superuser.
    FOR found IN
        SELECT c.oid::regclass AS name
        FROM pg_class c
        WHERE c.relnamespace = '@schema'::regnamespace AND c.relowner = current_user::regrole
            AND c.relkind IN ('r', 'p', 'v', 'm')
            AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO moorline_owner', found.name);
    END LOOP;
    FOR found IN
        SELECT p.oid::regprocedure AS name
        FROM pg_proc p
        WHERE p.pronamespace = '@schema'::regnamespace AND p.proowner = current_user::regrole
            AND p.prokind IN ('f', 'p')
            AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO moorline_owner', found.name);
    END LOOP;
END
$$;

-- Registered functions are called by name, even by processes that do not know the component: a version that names a
-- missing function is refused now, not when somebody asks for an erasure.
DO $$
DECLARE
    wrong record;
BEGIN
    SELECT r.component, r.function, r.returns INTO wrong
        FROM (
            (SELECT DISTINCT ON (s.component) s.component, s.erase_function AS function, 'void' AS returns
                FROM @schema.moorline_schema s
                WHERE s.erase_function IS NOT NULL
                ORDER BY s.component, s.version DESC)
            UNION ALL
            (SELECT DISTINCT ON (s.component) s.component, s.export_function, 'jsonb'
                FROM @schema.moorline_schema s
                WHERE s.export_function IS NOT NULL
                ORDER BY s.component, s.version DESC)
        ) r
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_proc p
                WHERE p.oid = pg_catalog.to_regprocedure('@schema.' || pg_catalog.quote_ident(r.function) || '(text)')::oid
                    AND pg_catalog.format_type(p.prorettype, NULL) = r.returns)
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = pg_catalog.format('component %s registers a function %s(text) RETURNS %s, but there is none',
                wrong.component, wrong.function, wrong.returns),
            HINT = 'Create it in the file that names it, in schema @schema, or correct the name there.';
    END IF;
END
$$;

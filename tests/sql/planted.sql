-- Plants in public what a stranger who may create there can plant: operators, functions and casts that fit the types
-- below better than what pg_catalog has. Each raises when it is run.
--
-- PostgreSQL prefers what fits the operands' types exactly, in any schema of the search_path; pg_catalog comes first
-- only among equal fits. An untyped literal is first taken to have the type of the other operand, or text as an
-- argument. Where pg_catalog has nothing at all, nothing is planted, because no statement of ours could mean it.
-- Functions get the names in the setting planting.names.
SET search_path = pg_catalog;

CREATE TEMPORARY TABLE met AS
SELECT t.oid::regtype AS type,
    t.typcategory = 'A' AND t.typelem <> 0 AS is_array,
    t.typtype = 'r' AS is_range,
    t.typtype = 'c' AS is_composite,
    coalesce(nullif(t.typelem, 0), r.rngsubtype)::regtype AS element,
    nullif(t.typarray, 0)::regtype AS array_of
FROM pg_type t
LEFT JOIN pg_range r ON r.rngtypid = t.oid
WHERE t.oid = ANY (
        ARRAY[
            'text', 'varchar', 'bpchar', 'name', '"char"', 'integer', 'bigint', 'smallint', 'double precision', 'real',
            'numeric', 'boolean', 'uuid', 'jsonb', 'json', 'bytea', 'timestamptz', 'timestamp', 'date', 'time',
            'interval', 'int8range', 'tstzrange', 'oid', 'regclass', 'regtype', 'regprocedure', 'tid', 'int2vector',
            'text[]', 'varchar[]', 'name[]', 'uuid[]', 'bigint[]', 'integer[]', 'boolean[]', 'bytea[]', 'timestamptz[]',
            'jsonb[]'
        ]::regtype[])
    OR t.oid IN (
        SELECT c.reltype FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p'));

-- The types that are implicitly converted to a parameter's.
CREATE TEMPORARY TABLE taken AS
SELECT m.type, p.oid AS param
FROM met m
JOIN pg_type p ON p.oid = m.type
    OR EXISTS (
        SELECT FROM pg_cast c WHERE c.castsource = m.type AND c.casttarget = p.oid AND c.castcontext = 'i')
    OR p.typname IN ('any', 'anyelement', 'anycompatible')
    OR p.typname IN ('anyarray', 'anycompatiblearray') AND m.is_array
    OR p.typname IN ('anynonarray', 'anycompatiblenonarray') AND NOT m.is_array
    OR p.typname IN ('anyrange', 'anycompatiblerange') AND m.is_range
    OR p.typname = 'record' AND m.is_composite;

DO $operators$
DECLARE
    pair record;
    meant text[];
    expression text;
    result regtype;
    function text;
    types text;
BEGIN
    FOR pair IN
        WITH candidates (name, l, r) AS (
            SELECT o.oprname, l.type, r.type
            FROM pg_operator o JOIN taken l ON l.param = o.oprleft JOIN taken r ON r.param = o.oprright
            UNION
            SELECT o.oprname, t.type, t.type
            FROM pg_operator o JOIN taken t ON t.param IN (o.oprleft, o.oprright)
            WHERE o.oprkind = 'b'
            UNION
            SELECT o.oprname, NULL, r.type
            FROM pg_operator o JOIN taken r ON r.param = o.oprright
            WHERE o.oprkind = 'l'
        )
        SELECT c.name, c.l, c.r
        FROM candidates c
        WHERE NOT EXISTS (
                SELECT FROM pg_operator o
                WHERE o.oprname = c.name AND o.oprleft = coalesce(c.l, 0) AND o.oprright = c.r)
            -- Of rows, only comparisons with rows of the same type.
            AND (c.l = c.r AND c.name <> '||'
                OR NOT EXISTS (SELECT FROM met m WHERE m.is_composite AND m.type IN (c.l, c.r)))
    LOOP
        -- What pg_catalog's operator returns; for a type with itself, also with a literal on either side.
        result := NULL;
        meant := ARRAY[format('%s OPERATOR(pg_catalog.%s) NULL::%s', 'NULL::' || pair.l, pair.name, pair.r)];
        IF pair.l = pair.r THEN
            meant := meant || ARRAY[
                format('NULL::%s OPERATOR(pg_catalog.%s) NULL', pair.l, pair.name),
                format('NULL OPERATOR(pg_catalog.%s) NULL::%s', pair.name, pair.l)];
        END IF;
        FOREACH expression IN ARRAY meant LOOP
            BEGIN
                EXECUTE format('SELECT pg_typeof(%s)', expression) INTO result;
                EXIT;
            EXCEPTION WHEN undefined_function OR ambiguous_function OR feature_not_supported OR datatype_mismatch
                OR indeterminate_datatype OR invalid_text_representation THEN
                NULL;
            END;
        END LOOP;
        CONTINUE WHEN result IS NULL;
        function := 'planted_' || result::oid;
        types := concat_ws(', ', pair.l, pair.r);
        IF to_regprocedure(format('public.%I(%s)', function, types)) IS NULL THEN
            EXECUTE format(
                'CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS ''BEGIN RAISE $$planted$$; END''',
                function, types, result);
        END IF;
        EXECUTE format('CREATE OPERATOR public.%s (%s RIGHTARG = %s, FUNCTION = public.%I)',
            pair.name, 'LEFTARG = ' || pair.l || ',', pair.r, function);
    END LOOP;
END
$operators$;

-- For one or two parameters all combinations, for more one parameter at a time.
DO $functions$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        WITH called AS (
            SELECT p.proname AS name, p.prorettype AS returns, p.proretset AS is_set, p.proargtypes::oid[] AS params,
                p.pronargs
            FROM pg_proc p
            WHERE p.proname = ANY (string_to_array(current_setting('planting.names'), ' '))
                AND p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a') AND p.pronargs > 0
        ), fits (param, type) AS (
            SELECT t.param, t.type FROM taken t WHERE NOT (SELECT m.is_composite FROM met m WHERE m.type = t.type)
            UNION
            SELECT p.oid, 'text' FROM pg_type p
        ), met_with (name, returns, is_set, types) AS (
            SELECT c.name, c.returns, c.is_set, ARRAY[a.type]
            FROM called c JOIN fits a ON a.param = c.params[0]
            WHERE c.pronargs = 1 AND (a.param <> '"any"'::regtype OR a.type <> 'text[]'::regtype)
            UNION
            SELECT c.name, c.returns, c.is_set, ARRAY[a.type, b.type]
            FROM called c JOIN fits a ON a.param = c.params[0] JOIN fits b ON b.param = c.params[1]
            WHERE c.pronargs = 2
                AND (a.param <> '"any"'::regtype OR b.param <> a.param OR a.type = 'text'::regtype)
            UNION
            SELECT c.name, c.returns, c.is_set,
                ARRAY(
                    SELECT CASE WHEN p.place = i THEN a.type ELSE p.param::regtype END
                    FROM unnest(c.params) WITH ORDINALITY AS p (param, place))
            FROM called c
            CROSS JOIN generate_series(1, c.pronargs) AS i
            JOIN fits a ON a.param = c.params[i - 1]
            WHERE c.pronargs > 2
        )
        SELECT DISTINCT ON (w.name, w.types) w.name, w.is_set, array_to_string(w.types, ', ') AS types,
            CASE r.typname
                WHEN 'anyelement' THEN coalesce(f.element, f.type)
                WHEN 'anycompatible' THEN coalesce(f.element, f.type)
                WHEN 'anyarray' THEN CASE WHEN f.is_array THEN f.type ELSE f.array_of END
                WHEN 'anycompatiblearray' THEN CASE WHEN f.is_array THEN f.type ELSE f.array_of END
                WHEN 'anyrange' THEN f.type
                ELSE r.oid::regtype
            END AS returns
        FROM met_with w
        JOIN pg_type r ON r.oid = w.returns
        LEFT JOIN LATERAL (
            SELECT m.type, m.is_array, m.element, m.array_of
            FROM unnest(w.types) WITH ORDINALITY AS t (type, place)
            JOIN met m ON m.type = t.type
            ORDER BY m.is_array DESC, t.place
            LIMIT 1
        ) f ON true
        WHERE NOT EXISTS (
                SELECT FROM pg_proc p
                WHERE p.proname = w.name AND p.pronamespace = 'pg_catalog'::regnamespace
                    AND p.pronargs = cardinality(w.types)
                    AND ARRAY(SELECT a FROM unnest(p.proargtypes::oid[]) AS a) = w.types::oid[])
            AND NOT EXISTS (
                SELECT FROM unnest(w.types) AS t (type) JOIN pg_type p ON p.oid = t.type WHERE p.typtype = 'p')
        ORDER BY w.name, w.types
    LOOP
        EXECUTE format(
            'CREATE FUNCTION public.%I(%s) RETURNS %s%s LANGUAGE plpgsql AS ''BEGIN RAISE $$planted$$; END''',
            wanted.name, wanted.types, CASE WHEN wanted.is_set THEN 'SETOF ' END, wanted.returns);
    END LOOP;
    FOR wanted IN
        SELECT DISTINCT p.proname AS name, p.prorettype::regtype AS returns
        FROM pg_proc p
        WHERE p.proname = ANY (string_to_array(current_setting('planting.names'), ' '))
            AND p.pronamespace = 'pg_catalog'::regnamespace AND p.provariadic = '"any"'::regtype AND p.prokind = 'f'
    LOOP
        EXECUTE format(
            'CREATE FUNCTION public.%I(VARIADIC text[]) RETURNS %s LANGUAGE plpgsql AS'
            ' ''BEGIN RAISE $$planted$$; END''', wanted.name, wanted.returns);
    END LOOP;
END
$functions$;

-- Casts only from and to a type of the stranger's own.
CREATE TYPE public.planted AS (secret text);
DO $casts$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT m.type FROM met m WHERE NOT m.is_composite LOOP
        EXECUTE format('CREATE FUNCTION public.planted_in(%s) RETURNS public.planted LANGUAGE plpgsql AS'
            ' ''BEGIN RAISE $$planted$$; END''', wanted.type);
        EXECUTE format(
            'CREATE CAST (%1$s AS public.planted) WITH FUNCTION public.planted_in(%1$s) AS IMPLICIT', wanted.type);
    END LOOP;
END
$casts$;

-- Everything in a schema, one line of text for each object.
SELECT line FROM (
    SELECT format('relation %s kind %s options %s', c.relname, c.relkind, c.reloptions) AS line
        FROM pg_class c WHERE c.relnamespace = $1::regnamespace
    UNION ALL
    SELECT format('column %s.%s at %s: %s not null %s default %s identity %s generated %s collation %s',
            c.relname, a.attname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
            format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
            a.attidentity, a.attgenerated, a.attcollation::regcollation)
        FROM pg_attribute a
        JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'v', 'p', 'm')
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = $1::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('constraint %s of %s: %s', k.conname, k.conrelid::regclass, pg_get_constraintdef(k.oid))
        FROM pg_constraint k WHERE k.connamespace = $1::regnamespace
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(c.oid))
        FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'i'
    UNION ALL
    SELECT format('view %s: %s', c.relname, pg_get_viewdef(c.oid))
        FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('v', 'm')
    UNION ALL
    SELECT format('sequence %s: %s from %s by %s between %s and %s cache %s cycle %s',
            c.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid WHERE c.relnamespace = $1::regnamespace
    UNION ALL
    SELECT format('function %s', pg_get_functiondef(p.oid))
        FROM pg_proc p WHERE p.pronamespace = $1::regnamespace AND p.prokind IN ('f', 'p')
    UNION ALL
    SELECT format('trigger %s enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal
    UNION ALL
    SELECT format('comment on %s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
        FROM pg_description d
        WHERE d.objoid IN (
            SELECT c.oid FROM pg_class c WHERE c.relnamespace = $1::regnamespace
            UNION ALL SELECT p.oid FROM pg_proc p WHERE p.pronamespace = $1::regnamespace)
    UNION ALL
    SELECT format('rights on %s: %s', c.relname, c.relacl)
        FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relacl IS NOT NULL
    UNION ALL
    SELECT format('rights on %s: %s', p.oid::regprocedure, p.proacl)
        FROM pg_proc p WHERE p.pronamespace = $1::regnamespace AND p.proacl IS NOT NULL
    UNION ALL
    SELECT format('type %s kind %s', t.typname, t.typtype)
        FROM pg_type t WHERE t.typnamespace = $1::regnamespace AND t.typtype <> 'c' AND t.typelem = 0
) lines
ORDER BY line

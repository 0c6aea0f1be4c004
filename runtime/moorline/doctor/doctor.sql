-- What the checks ask of the server. Nothing is changed.

-- name: server repeatable
SELECT pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::integer AS number,
    pg_catalog.pg_is_in_recovery() AS replica,
    pg_catalog.current_setting('max_connections')::integer AS most,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
        WHERE a.backend_type = 'client backend'::text) AS used;

-- name: roles repeatable
SELECT current_user::text AS name, r.rolsuper AS super,
    pg_catalog.has_schema_privilege($1::text, 'CREATE') AS creates,
    coalesce(pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE'), false) AS owns
FROM pg_catalog.pg_roles r
LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass('@schema.conversation_messages')::oid
WHERE r.rolname = current_user;

-- name: lacking_on_tables repeatable
-- Of the rights ($2) on tables and views ($1), those that the role lacks.
SELECT n.name AS object, n.required AS privilege
FROM unnest($1::text[], $2::text[]) AS n (name, required)
WHERE pg_catalog.to_regclass(n.name) IS NOT NULL
    AND NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass(n.name)::oid, n.required);

-- name: lacking_on_functions repeatable
-- Of the functions of the schema by these names, those that the role may not call.
SELECT p.proname::text AS object
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
WHERE s.nspname = $1::name AND p.proname::text = ANY ($2::text[])
    AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE');

-- name: backend repeatable
SELECT pg_catalog.pg_backend_pid();

-- name: clock repeatable
SELECT pg_catalog.clock_timestamp();

-- name: offsets repeatable
-- For each zone and moment, the local time there as the server counts it.
SELECT z.zone, m.moment, pg_catalog.timezone(z.zone, m.moment) AS there
FROM unnest($1::text[]) AS z (zone)
CROSS JOIN unnest($2::timestamptz[]) AS m (moment)
WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_timezone_names t WHERE t.name = z.zone);

-- name: has_providers repeatable
SELECT pg_catalog.to_regclass('@schema.appointment_providers') IS NOT NULL;

-- name: providers_zones repeatable
SELECT DISTINCT p.time_zone FROM @schema.appointment_providers p;

-- name: leases repeatable
-- Turns whose lease ended more than a minute ago and which nobody has finished since.
SELECT pg_catalog.count(*) AS turns,
    coalesce(
        pg_catalog.date_part('epoch', pg_catalog.statement_timestamp() - pg_catalog.min(s.lease_until)), 0) AS seconds
FROM @schema.conversation_states s
WHERE s.claim_id IS NOT NULL AND s.lease_until < pg_catalog.statement_timestamp() - interval '1 minute';

-- name: long_transactions repeatable
SELECT pg_catalog.count(*) AS transactions,
    coalesce(
        pg_catalog.date_part('epoch', pg_catalog.statement_timestamp() - pg_catalog.min(a.xact_start)), 0) AS seconds
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    AND a.xact_start < pg_catalog.statement_timestamp() - interval '1 minute'
    AND a.backend_type = 'client backend'::text;

-- name: bloat repeatable
SELECT t.relname::text AS name, t.n_live_tup AS live, t.n_dead_tup AS dead
FROM pg_catalog.pg_stat_user_tables t
WHERE t.schemaname = $1::name
    AND (t.relname::text LIKE 'conversation%' OR t.relname::text LIKE 'moorline%' OR t.relname::text LIKE 'appointment%');

-- name: vacuum repeatable
SELECT pg_catalog.current_setting('autovacuum')::boolean AS automatic,
    pg_catalog.age(d.datfrozenxid) AS age
FROM pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database();

-- name: dead_count repeatable
SELECT pg_catalog.count(*) FROM @schema.conversation_messages m WHERE m.status = 'dead';

-- name: cleanups repeatable
-- The expired locks that are still there, and whether nobody has cleaned up for a day although there was something to.
SELECT (SELECT pg_catalog.count(*) FROM @schema.expired_sessions) AS expired,
    coalesce(c.begun_at < pg_catalog.statement_timestamp() - interval '1 day', true)
        AND EXISTS (
            SELECT 1 FROM @schema.conversation_turns t
            WHERE t.committed_at < pg_catalog.statement_timestamp() - interval '1 day') AS overdue
FROM @schema.moorline_cleanups c
WHERE c.name = 'cleanup'::text;

-- name: written repeatable
SELECT pg_catalog.pg_current_wal_lsn();

-- name: key repeatable
-- Which database this is, or is a copy of.
SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'log'::text;

-- name: replayed repeatable
SELECT pg_catalog.pg_is_in_recovery() AS replica,
    (SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'log'::text) AS key,
    coalesce(
        pg_catalog.date_part(
            'epoch', pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()), 0) AS seconds,
    coalesce(pg_catalog.pg_wal_lsn_diff($1::pg_lsn, pg_catalog.pg_last_wal_replay_lsn()), 0)::bigint AS bytes;

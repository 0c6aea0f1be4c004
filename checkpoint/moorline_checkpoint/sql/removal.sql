-- Removing and copying conversations. The functions lock a device's row while they change it; see the migrations.

-- name: erase
-- Returns whether there was anything of the device.
SELECT @schema.moorline_erase_everywhere($1::text);

-- name: export repeatable
SELECT @schema.moorline_export_everywhere(@schema.moorline_conversation($1::text));

-- name: prune_all
SELECT @schema.moorline_prune_all($1::text);

-- name: prune_to_latest
SELECT @schema.moorline_prune_to_latest($1::text);

-- name: delete_runs
SELECT @schema.moorline_delete_runs($1::text[]);

-- name: copy_checkpoints
SELECT @schema.moorline_copy($1::text, $2::text);

-- name: old_devices repeatable
-- A page of devices that may have something older than $2 days, after the last device of the page before. The
-- comparison comes first so that $1 gets the column's type.
SELECT s.device_id::text AS device_id
FROM @schema.conversation_states s
CROSS JOIN (SELECT pg_catalog.statement_timestamp() - $2::double precision * interval '1 day') AS o (oldest)
WHERE (s.device_id OPERATOR(pg_catalog.>) $1 OR $1 IS NULL)
    AND s.device_id IS NOT NULL
    AND s.claim_id IS NULL
    AND (@last_used < o.oldest AND (s.heads <> '{}' OR EXISTS (
            SELECT 1 FROM @schema.conversation_facts f WHERE f.device_id = s.device_id::text))
        OR o.oldest > (
            SELECT t.committed_at FROM @schema.conversation_turns t
            WHERE t.device_id = s.device_id::text ORDER BY t.turn_no LIMIT 1)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = s.device_id::text AND m.status IN ('waiting', 'dead') AND m.received_at < o.oldest)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_effects e
            WHERE e.device_id = s.device_id::text AND e.recorded_at < o.oldest)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_files f
            WHERE f.device_id = s.device_id::text AND f.stored_at < o.oldest)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_sessions n
            WHERE n.device_id = s.device_id::text AND n.ended_at < o.oldest)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_days d
            WHERE d.device_id = s.device_id::text AND d.day < pg_catalog.timezone('UTC', o.oldest)::date))
ORDER BY s.device_id
LIMIT $3::integer;

-- name: retire
SELECT @schema.moorline_retire($1::text, $2::double precision, $3::integer);

-- name: made_here repeatable
-- Whether Moorline made conversation_states; the rows of a table that a backend had are the backend's.
SELECT pg_catalog.obj_description('@schema.conversation_states'::regclass::oid, 'pg_class'::name)
    LIKE 'Made by Moorline%'::text;

-- name: forgotten_devices repeatable
-- A page of the devices of which only the row is left, after the last device of the page before.
SELECT s.device_id::text AS device_id
FROM @schema.conversation_states s
WHERE (s.device_id OPERATOR(pg_catalog.>) $1 OR $1 IS NULL) AND s.device_id IS NOT NULL AND @is_forgotten($2)
ORDER BY s.device_id
LIMIT $3::integer;

-- name: hold_device repeatable
-- Locks the row; no row if somebody else has. What is in other tables may have changed until then.
SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED;

-- name: forget
DELETE FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) $1 AND @is_forgotten($2)
RETURNING 1;

-- Session locks. Where the key of conversation_states is compared with a parameter, that has the key's type, because
-- device_id is a uuid in some databases that had the table before. A device means the conversation that it leads to.

-- name: get_lock repeatable
SELECT s.active_agent FROM @schema.moorline_session($1::text) s;

-- name: get_session repeatable
SELECT s.active_agent, s.locked_at, s.expires_at FROM @schema.moorline_session($1::text) s;

-- name: set_lock repeatable
-- The sessions that ended with it, as they are told; null, and nothing is set, if the moment $4 has passed.
SELECT @schema.moorline_set_lock_2($1::text, $2::text, $3::integer, $4::timestamptz, $5::integer, $6::integer);

-- name: clear_lock
-- The session that ended with it, as it is told.
SELECT @schema.moorline_clear_lock_2($1::text, $2::text);

-- name: set_person_ttl repeatable
-- The session that had expired before, as it is told.
SELECT @schema.moorline_set_person_ttl($1::text, $2::integer, $3::integer);

-- name: expire_locks
-- The sessions that ended, as they are told.
SELECT e.session FROM @schema.moorline_expire_locks($1::integer) AS e (session);

-- name: list_locks repeatable
-- A page of live locks by device ID, after the last one of the page before. Rows without a device ID are another
-- backend's. The comparison comes first so that $1 gets the column's type.
SELECT s.device_id::text AS device_id, s.active_agent, coalesce(s.locked_at, s.last_active_at) AS locked_at,
    @expires_at AS expires_at
FROM @schema.conversation_states s
WHERE (s.device_id OPERATOR(pg_catalog.>) $1 OR $1 IS NULL)
    AND s.device_id IS NOT NULL
    AND @lock_is_live(pg_catalog.statement_timestamp())
ORDER BY s.device_id
LIMIT $2::integer;

-- name: log_key repeatable
-- The key for device tags in logs.
SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'log'::text;

-- name: device_key repeatable
-- The type of the column device_id, its modifier, and whether its collation takes only equal texts for equal.
SELECT pg_catalog.format_type(a.atttypid, NULL) AS type, a.atttypmod AS modifier,
    coalesce(c.collisdeterministic, true) AS exact
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = '@schema.conversation_states'::regclass::oid AND a.attname = 'device_id'::name;

-- name: spelling repeatable
-- The ID of the row that the key takes for the device's.
SELECT s.device_id::text FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) $1;

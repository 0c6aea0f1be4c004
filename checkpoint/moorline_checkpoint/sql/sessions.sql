-- Session locks. A lock is live until the session's time to live has passed since the later of the device's
-- last activity and the moment it was taken (a back-end that writes only active_agent and locked_at counts).

-- name: get_lock repeatable
SELECT s.active_agent
FROM @schema.conversation_states s
WHERE s.device_id = $1
    AND s.active_agent IS NOT NULL
    AND greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' > clock_timestamp();

-- name: get_session repeatable
SELECT s.active_agent, coalesce(s.locked_at, s.last_active_at) AS locked_at,
    greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' AS expires_at
FROM @schema.conversation_states s
WHERE s.device_id = $1
    AND s.active_agent IS NOT NULL
    AND greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' > clock_timestamp();

-- name: set_lock repeatable
-- Takes or renews the lock. locked_at stays while the same agent's lock is live. $3 is the time to live asked
-- for, $4 the one of a device that has none yet.
INSERT INTO @schema.conversation_states AS s (device_id, active_agent, session_ttl, locked_at, last_active_at)
VALUES ($1, $2, coalesce($3::integer, $4::integer), statement_timestamp(), statement_timestamp())
ON CONFLICT (device_id) DO UPDATE
SET active_agent = excluded.active_agent,
    session_ttl = coalesce($3::integer, s.session_ttl),
    locked_at = CASE
        WHEN s.active_agent = excluded.active_agent
            AND greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' > clock_timestamp()
        THEN coalesce(s.locked_at, excluded.locked_at)
        ELSE excluded.locked_at
    END,
    last_active_at = excluded.last_active_at;

-- name: clear_lock
-- Drops the lock and says whether it was live.
WITH held AS (
    SELECT s.device_id,
        greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' > clock_timestamp() AS live
    FROM @schema.conversation_states s
    WHERE s.device_id = $1 AND s.active_agent IS NOT NULL
    FOR UPDATE
)
UPDATE @schema.conversation_states s
SET active_agent = NULL, locked_at = NULL
FROM held h
WHERE s.device_id = h.device_id
RETURNING h.live;

-- name: clear_expired_locks
-- Drops up to $1 locks that are past their time and that nobody is changing.
WITH expired AS (
    SELECT s.device_id
    FROM @schema.conversation_states s
    WHERE s.device_id IS NOT NULL
        AND s.active_agent IS NOT NULL
        AND greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' <= clock_timestamp()
    LIMIT $1::integer
    FOR UPDATE SKIP LOCKED
), cleared AS (
    UPDATE @schema.conversation_states s
    SET active_agent = NULL, locked_at = NULL
    FROM expired e
    WHERE s.device_id = e.device_id
    RETURNING 1
)
SELECT count(*) FROM cleared;

-- name: list_locks repeatable
-- A page of live locks by device ID, after that of the last page. Rows without one are another back-end's.
-- Comparing first gives $1 the column's type.
SELECT s.device_id::text AS device_id, s.active_agent, coalesce(s.locked_at, s.last_active_at) AS locked_at,
    greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' AS expires_at
FROM @schema.conversation_states s
WHERE (s.device_id > $1 OR $1 IS NULL)
    AND s.device_id IS NOT NULL
    AND s.active_agent IS NOT NULL
    AND greatest(s.last_active_at, s.locked_at) + s.session_ttl * interval '1 second' > clock_timestamp()
ORDER BY s.device_id
LIMIT $2::integer;

-- name: log_key repeatable
-- With which devices are tagged in logs.
SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'log'::text

-- What removes or copies whole conversations. Several of these may run at once on one device: each takes the
-- device's advisory lock first, which ends with its transaction.

-- name: lock_device
SELECT pg_advisory_xact_lock(hashtextextended('moorline checkpoints of ' || $1::text, 0));

-- name: blank_state
-- Goes first in an erasure: it waits for a turn that is committing, so that what follows sees all of it, and holds off
-- whatever begins meanwhile, on a device without a row too. The union gives the key the type of the column, and so
-- NULL where the device can have no row.
INSERT INTO @schema.conversation_states AS s (device_id)
SELECT k.device_id
FROM (SELECT n.device_id FROM @schema.conversation_states n WHERE false UNION ALL SELECT $1) k
WHERE k.device_id IS NOT NULL
ON CONFLICT (device_id) DO UPDATE
SET active_agent = NULL,
    locked_at = NULL,
    session_ttl = DEFAULT,
    last_active_at = NULL,
    last_turn_no = 0,
    claim_id = NULL,
    open_messages = NULL,
    lease_until = NULL,
    heads = '{}',
    arrivals = 0;

-- name: erase_state
DELETE FROM @schema.conversation_states s WHERE s.device_id = $1;

-- name: erase_rows
WITH messages AS (
    DELETE FROM @schema.conversation_messages WHERE device_id = $1::text
), turns AS (
    DELETE FROM @schema.conversation_turns WHERE device_id = $1::text
), effects AS (
    DELETE FROM @schema.conversation_effects WHERE device_id = $1::text
), stored AS (
    DELETE FROM @schema.conversation_values WHERE device_id = $1::text
), writes AS (
    DELETE FROM @schema.conversation_writes WHERE device_id = $1::text
)
DELETE FROM @schema.conversation_checkpoints WHERE device_id = $1::text;

-- name: prune_all
-- All checkpoints, but nothing else of the device.
WITH heads AS (
    UPDATE @schema.conversation_states s SET heads = '{}' WHERE s.device_id = $2 AND s.heads <> '{}'
), stored AS (
    DELETE FROM @schema.conversation_values WHERE device_id = $1::text
), writes AS (
    DELETE FROM @schema.conversation_writes WHERE device_id = $1::text
)
DELETE FROM @schema.conversation_checkpoints WHERE device_id = $1::text;

-- name: prune_to_latest
-- All checkpoints but the latest of each namespace and those it is made of: a channel kept as deltas has its
-- value in the writes of the ancestors, back to the nearest that stored it whole. Such channels are known by
-- the counters that LangGraph keeps of them in the metadata. The namespace of a subgraph's call (with the ID
-- of a task after a colon) goes with the root checkpoint that it was called from.
-- Writes go by the checkpoints deleted, not by those kept: they may arrive before their own checkpoint.
WITH RECURSIVE latest AS (
    SELECT DISTINCT ON (c.checkpoint_ns) c.checkpoint_ns,
        coalesce(h.checkpoint_id, c.checkpoint_id) AS checkpoint_id
    FROM @schema.conversation_checkpoints c
    LEFT JOIN @schema.conversation_states s ON s.device_id = $2
    LEFT JOIN @schema.conversation_checkpoints h
        ON h.device_id = $1::text AND h.checkpoint_ns = c.checkpoint_ns
            AND h.checkpoint_id = s.heads ->> c.checkpoint_ns
    WHERE c.device_id = $1::text
    ORDER BY c.checkpoint_ns, c.checkpoint_id DESC
), deltas AS (
    SELECT DISTINCT c.checkpoint_ns, k.channel
    FROM @schema.conversation_checkpoints c
    CROSS JOIN LATERAL jsonb_object_keys(
        CASE jsonb_typeof(c.metadata -> 'counters_since_delta_snapshot')
            WHEN 'object' THEN c.metadata -> 'counters_since_delta_snapshot'
            ELSE '{}'
        END
    ) AS k (channel)
    WHERE c.device_id = $1::text
), kept AS (
    SELECT c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id,
        ARRAY(
            SELECT d.channel
            FROM deltas d
            WHERE d.checkpoint_ns = c.checkpoint_ns
                AND c.versions ? d.channel
                AND NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = $1::text AND v.checkpoint_ns = c.checkpoint_ns
                        AND v.channel = d.channel AND v.version = c.versions ->> d.channel
                )
        ) AS missing
    FROM latest l
    JOIN @schema.conversation_checkpoints c
        ON c.device_id = $1::text AND c.checkpoint_ns = l.checkpoint_ns AND c.checkpoint_id = l.checkpoint_id
    UNION ALL
    SELECT a.checkpoint_ns, a.checkpoint_id, a.parent_checkpoint_id,
        ARRAY(
            SELECT m.channel
            FROM unnest(k.missing) AS m (channel)
            WHERE NOT EXISTS (
                SELECT 1
                FROM @schema.conversation_values v
                WHERE v.device_id = $1::text AND v.checkpoint_ns = a.checkpoint_ns
                    AND v.channel = m.channel AND v.version = a.versions ->> m.channel
            )
        )
    FROM kept k
    JOIN @schema.conversation_checkpoints a
        ON a.device_id = $1::text AND a.checkpoint_ns = k.checkpoint_ns
            AND a.checkpoint_id = k.parent_checkpoint_id
    WHERE k.missing <> '{}'
), past_calls AS (
    SELECT l.checkpoint_ns
    FROM latest l
    JOIN @schema.conversation_checkpoints c
        ON c.device_id = $1::text AND c.checkpoint_ns = l.checkpoint_ns AND c.checkpoint_id = l.checkpoint_id
    JOIN @schema.conversation_checkpoints root
        ON root.device_id = $1::text AND root.checkpoint_ns = ''
            AND root.checkpoint_id = c.metadata -> 'parents' ->> ''
    WHERE l.checkpoint_ns LIKE '%:%'
        AND NOT EXISTS (
            SELECT 1 FROM kept k WHERE k.checkpoint_ns = '' AND k.checkpoint_id = root.checkpoint_id
        )
), doomed AS (
    SELECT c.checkpoint_ns, c.checkpoint_id, c.versions
    FROM @schema.conversation_checkpoints c
    WHERE c.device_id = $1::text
        AND (
            c.checkpoint_ns IN (SELECT p.checkpoint_ns FROM past_calls p)
            OR (c.checkpoint_ns, c.checkpoint_id) NOT IN (SELECT k.checkpoint_ns, k.checkpoint_id FROM kept k)
        )
), unused AS (
    SELECT d.checkpoint_ns, n.channel, n.version
    FROM doomed d
    CROSS JOIN LATERAL jsonb_each_text(d.versions) AS n (channel, version)
    EXCEPT
    SELECT c.checkpoint_ns, n.channel, n.version
    FROM @schema.conversation_checkpoints c
    CROSS JOIN LATERAL jsonb_each_text(c.versions) AS n (channel, version)
    WHERE c.device_id = $1::text
        AND (c.checkpoint_ns, c.checkpoint_id) NOT IN (SELECT d.checkpoint_ns, d.checkpoint_id FROM doomed d)
), values_gone AS (
    DELETE FROM @schema.conversation_values v
    USING unused u
    WHERE v.device_id = $1::text AND v.checkpoint_ns = u.checkpoint_ns
        AND v.channel = u.channel AND v.version = u.version
), writes_gone AS (
    DELETE FROM @schema.conversation_writes w
    USING doomed d
    WHERE w.device_id = $1::text AND w.checkpoint_ns = d.checkpoint_ns AND w.checkpoint_id = d.checkpoint_id
), orphaned AS (
    UPDATE @schema.conversation_checkpoints c
    SET parent_checkpoint_id = NULL
    FROM doomed d
    WHERE c.device_id = $1::text AND c.checkpoint_ns = d.checkpoint_ns
        AND c.parent_checkpoint_id = d.checkpoint_id
        AND (c.checkpoint_ns, c.checkpoint_id) NOT IN (SELECT o.checkpoint_ns, o.checkpoint_id FROM doomed o)
), heads_gone AS (
    UPDATE @schema.conversation_states s
    SET heads = s.heads - ARRAY(SELECT p.checkpoint_ns FROM past_calls p)
    WHERE s.device_id = $2 AND s.heads ?| ARRAY(SELECT p.checkpoint_ns FROM past_calls p)
)
DELETE FROM @schema.conversation_checkpoints c
USING doomed d
WHERE c.device_id = $1::text AND c.checkpoint_ns = d.checkpoint_ns AND c.checkpoint_id = d.checkpoint_id;

-- name: delete_runs
-- The checkpoints of some runs, in whatever conversations they are. A head that goes is no head any more.
WITH doomed AS (
    SELECT c.device_id, c.checkpoint_ns, c.checkpoint_id, c.versions
    FROM @schema.conversation_checkpoints c
    WHERE c.metadata ->> 'run_id' = ANY ($1::text[])
), remaining AS (
    SELECT c.device_id, c.checkpoint_ns, c.versions
    FROM @schema.conversation_checkpoints c
    WHERE (c.device_id, c.checkpoint_ns) IN (SELECT d.device_id, d.checkpoint_ns FROM doomed d)
        AND (c.metadata ->> 'run_id' = ANY ($1::text[])) IS NOT TRUE
), unused AS (
    SELECT d.device_id, d.checkpoint_ns, n.channel, n.version
    FROM doomed d
    CROSS JOIN LATERAL jsonb_each_text(d.versions) AS n (channel, version)
    EXCEPT
    SELECT r.device_id, r.checkpoint_ns, n.channel, n.version
    FROM remaining r
    CROSS JOIN LATERAL jsonb_each_text(r.versions) AS n (channel, version)
), values_gone AS (
    DELETE FROM @schema.conversation_values v
    USING unused u
    WHERE v.device_id = u.device_id AND v.checkpoint_ns = u.checkpoint_ns
        AND v.channel = u.channel AND v.version = u.version
), writes_gone AS (
    DELETE FROM @schema.conversation_writes w
    USING doomed d
    WHERE w.device_id = d.device_id AND w.checkpoint_ns = d.checkpoint_ns AND w.checkpoint_id = d.checkpoint_id
), orphaned AS (
    UPDATE @schema.conversation_checkpoints c
    SET parent_checkpoint_id = NULL
    FROM doomed d
    WHERE c.device_id = d.device_id AND c.checkpoint_ns = d.checkpoint_ns
        AND c.parent_checkpoint_id = d.checkpoint_id
        AND (c.metadata ->> 'run_id' = ANY ($1::text[])) IS NOT TRUE
), heads_gone AS (
    UPDATE @schema.conversation_states s
    SET heads = s.heads - g.namespaces
    FROM (
        SELECT st.device_id, array_agg(d.checkpoint_ns) AS namespaces
        FROM doomed d
        JOIN @schema.conversation_states st ON st.device_id::text = d.device_id
        WHERE st.heads ->> d.checkpoint_ns = d.checkpoint_id
        GROUP BY st.device_id
    ) g
    WHERE s.device_id = g.device_id
)
DELETE FROM @schema.conversation_checkpoints c
USING doomed d
WHERE c.device_id = d.device_id AND c.checkpoint_ns = d.checkpoint_ns AND c.checkpoint_id = d.checkpoint_id;

-- name: copy_checkpoints
-- A conversation's checkpoints under another device ID; the copy stands where the original stands. What the
-- target has under the same keys stays. The CASE gives $4 the type of the column.
WITH stored AS (
    INSERT INTO @schema.conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
    SELECT $2::text, v.checkpoint_ns, v.channel, v.version, v.type, v.blob
    FROM @schema.conversation_values v
    WHERE v.device_id = $1::text
    ON CONFLICT (device_id, checkpoint_ns, channel, version) DO NOTHING
), writes AS (
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
    SELECT $2::text, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type,
        w.blob
    FROM @schema.conversation_writes w
    WHERE w.device_id = $1::text
    ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING
), heads AS (
    INSERT INTO @schema.conversation_states AS t (device_id, heads)
    SELECT CASE WHEN true THEN $4 ELSE s.device_id END, s.heads
    FROM @schema.conversation_states s
    WHERE s.device_id = $3 AND s.heads <> '{}' AND $4 IS NOT NULL
    ON CONFLICT (device_id) DO UPDATE SET heads = t.heads || excluded.heads
)
INSERT INTO @schema.conversation_checkpoints
    (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions)
SELECT $2::text, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
    c.versions
FROM @schema.conversation_checkpoints c
WHERE c.device_id = $1::text
ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO NOTHING;

-- name: old_devices repeatable
-- A page of devices, after that of the last page, of which something may be older than $2 days. Comparing first gives
-- $1 the column's type.
SELECT s.device_id::text AS device_id
FROM @schema.conversation_states s
CROSS JOIN (SELECT clock_timestamp() - $2::double precision * interval '1 day') AS o (oldest)
WHERE (s.device_id > $1 OR $1 IS NULL)
    AND s.device_id IS NOT NULL
    AND s.claim_id IS NULL
    AND (s.heads <> '{}' AND greatest(s.last_active_at, s.locked_at) < o.oldest
        OR o.oldest > (
            SELECT t.committed_at FROM @schema.conversation_turns t
            WHERE t.device_id = s.device_id::text ORDER BY t.turn_no LIMIT 1)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = s.device_id::text AND m.status IN ('waiting', 'dead') AND m.received_at < o.oldest)
        OR EXISTS (
            SELECT 1 FROM @schema.conversation_effects e
            WHERE e.device_id = s.device_id::text AND e.recorded_at < o.oldest))
ORDER BY s.device_id
LIMIT $3::integer;

-- name: retire
SELECT @schema.moorline_retire_2($1, $2, $3);

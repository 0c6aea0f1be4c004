-- Turns. What they do is told where the functions are made, in the migrations.

-- name: begin repeatable
SELECT b.place, b.answer, b.checkpoint_ns, b.checkpoint_id, b.parent_checkpoint_id, b.type, b.checkpoint, b.metadata,
    b.versions, b.value_channels, b.value_versions, b.value_types, b.value_blobs, b.write_tasks, b.write_idxs,
    b.write_paths, b.write_channels, b.write_types, b.write_blobs, b.delta_channels, b.history_depths, b.history_ids,
    b.history_tasks, b.history_idxs, b.history_paths, b.history_channels, b.history_versions, b.history_types,
    b.history_blobs
FROM @schema.moorline_begin_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) b

-- name: commit repeatable
SELECT c.place, c.outcome
FROM @schema.moorline_commit_2(
    $1, $2, $3, $4, $5,
    $6, $7, $8, $9, $10, $11, $12, $13,
    $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27, $28) c

-- name: release repeatable
SELECT @schema.moorline_release_2($1, $2, $3, $4, $5, $6, $7)

-- name: abandon repeatable
SELECT @schema.moorline_abandon_2($1, $2, $3)

-- name: heartbeat repeatable
SELECT @schema.moorline_heartbeat_1($1, $2, $3, $4)

-- name: hold_turn
-- A transaction of the turn holds the device's row until it ends, so that nobody claims the device meanwhile.
SELECT true
FROM @schema.conversation_states
WHERE device_id = $1 AND claim_id = $2
FOR UPDATE

-- name: known repeatable
SELECT EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id = $1)
    OR EXISTS (SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = $2::text)
    OR EXISTS (SELECT 1 FROM @schema.conversation_turns t WHERE t.device_id = $2::text)
    OR EXISTS (SELECT 1 FROM @schema.conversation_checkpoints c WHERE c.device_id = $2::text)

-- name: transcript repeatable
SELECT t.turn_no, t.agent, t.reply, t.handoffs, t.usage, t.interrupt, t.started_at, t.committed_at,
    ARRAY(
        SELECT m.text FROM @schema.conversation_messages m
        WHERE m.device_id = t.device_id AND m.turn_no = t.turn_no ORDER BY m.arrival) AS texts
FROM @schema.conversation_turns t
WHERE t.device_id = $1
ORDER BY t.turn_no

-- name: get_values repeatable
-- Values by channel and version; what has no row has no value.
SELECT v.channel, v.version, v.type, v.blob
FROM unnest($3::text[], $4::text[]) AS n (channel, version)
CROSS JOIN LATERAL (
    SELECT s.channel, s.version, s.type, s.blob
    FROM @schema.conversation_values s
    WHERE s.device_id = $1::text AND s.checkpoint_ns = $2::text AND s.channel = n.channel AND s.version = n.version
    LIMIT 1
) v

-- name: withdraw repeatable
SELECT @schema.moorline_withdraw_2($1, $2, $3)

-- name: journal
-- What a turn has to remember in case it runs again.
INSERT INTO @schema.conversation_effects
    (device_id, message_id, position, kind, name, intent, result, turn_no, fence)
SELECT $1::text, $2::text, n.position, n.kind, n.name, n.intent::jsonb, n.result::jsonb, $3::bigint, $4::bigint
FROM unnest($5::integer[], $6::text[], $7::text[], $8::text[], $9::text[]) AS n (position, kind, name, intent, result)

-- name: journal_result
UPDATE @schema.conversation_effects SET result = $4::jsonb
WHERE device_id = $1::text AND message_id = $2::text AND position = $3::integer

-- name: orphaned repeatable
-- Devices with an open turn, or with a message that waited in a process that is gone; begin tells whether the turn is
-- left.
SELECT s.device_id::text AS device_id FROM @schema.conversation_states s WHERE s.claim_id IS NOT NULL
UNION
SELECT m.device_id FROM @schema.conversation_messages m WHERE m.queued AND m.waiter_until <= clock_timestamp()
ORDER BY device_id

-- name: dead_letters repeatable
-- Messages that were set aside, the last first.
SELECT m.device_id, m.message_id, m.attempts, m.error, m.received_at
FROM @schema.conversation_messages m
WHERE m.status = 'dead'
ORDER BY m.received_at DESC

-- name: requeue repeatable
-- A message that was set aside, or whose caller was told of its failure, is tried again after those that wait now; with
-- those that it ran with.
WITH chosen AS (
    SELECT m.message_id, m.status, count(*) OVER () - row_number() OVER (ORDER BY m.arrival) AS behind,
        count(*) OVER () AS many
    FROM @schema.conversation_messages o
    JOIN @schema.conversation_messages m
        ON m.device_id = o.device_id AND m.status = o.status
            AND (m.message_id = o.message_id OR m.claim_id = o.claim_id)
    WHERE o.device_id = $2::text AND o.message_id = $3::text
        AND (o.status = 'dead' OR o.status = 'waiting' AND o.waiter_until IS NULL)
), place AS (
    UPDATE @schema.conversation_states s
    SET arrivals = s.arrivals + (SELECT max(c.many) FROM chosen c)
    WHERE s.device_id = $1 AND EXISTS (SELECT 1 FROM chosen)
    RETURNING s.arrivals
), revived AS (
    UPDATE @schema.conversation_messages m
    SET status = 'waiting', attempts = 0, arrival = p.arrivals - c.behind, waiter_until = NULL
    FROM place p, chosen c
    WHERE m.device_id = $2::text AND m.message_id = c.message_id AND m.status = c.status
    RETURNING m.message_id, m.text, m.resume, m.context
)
SELECT r.text, r.resume, r.context FROM revived r WHERE r.message_id = $3::text

-- Turns. What they do is told where the functions are made, in the migrations.

-- name: begin repeatable
SELECT @schema.moorline_begin_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- name: commit repeatable
SELECT @schema.moorline_commit_1(
    $1, $2, $3, $4,
    $5, $6, $7, $8, $9, $10, $11,
    $12, $13, $14, $15, $16,
    $17, $18, $19, $20, $21, $22, $23, $24)

-- name: release repeatable
SELECT @schema.moorline_release_1($1, $2, $3, $4, $5, $6)

-- name: heartbeat repeatable
SELECT @schema.moorline_heartbeat_1($1, $2, $3, $4)

-- A tool's transaction holds the device's row until it ends: nobody claims the device meanwhile.
-- name: hold_turn
SELECT true FROM @schema.conversation_states
WHERE device_id = $1 AND claim_id = $2 AND fence = $3
FOR UPDATE

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

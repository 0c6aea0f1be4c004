-- Turns. The functions are documented where they are created, in the migrations.

-- name: begin repeatable
SELECT b.place, b.answer, b.checkpoint_ns, b.checkpoint_id, b.parent_checkpoint_id, b.type, b.checkpoint, b.metadata,
    b.versions, b.value_channels, b.value_versions, b.value_types, b.value_blobs, b.write_tasks, b.write_idxs,
    b.write_paths, b.write_channels, b.write_types, b.write_blobs, b.delta_channels, b.history_depths, b.history_ids,
    b.history_tasks, b.history_idxs, b.history_paths, b.history_channels, b.history_versions, b.history_types,
    b.history_blobs
FROM @schema.moorline_begin_2(
    $1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::text, $12::integer, $13::double precision, $14::double precision, $15::integer, $16::integer) b;

-- name: commit repeatable
SELECT c.place, c.outcome, c.ended
FROM @schema.moorline_commit_2(
    $1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::integer,
    $6::integer[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::text[],
    $14::integer[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bytea[],
    $20::integer[], $21::text[], $22::text[], $23::text[], $24::integer[], $25::text[], $26::text[], $27::text[],
    $28::bytea[]) c;

-- name: heartbeat repeatable
SELECT @schema.moorline_heartbeat($1::text, $2::uuid, $3::double precision);

-- name: release repeatable
SELECT @schema.moorline_release(
    $1::text, $2::uuid, $3::text, $4::text, $5::boolean, $6::boolean, $7::text, $8::integer, $9::jsonb);

-- name: abandon repeatable
SELECT @schema.moorline_abandon($1::text, $2::uuid, $3::boolean);

-- name: withdraw repeatable
SELECT @schema.moorline_withdraw_2($1::text, $2::text, $3::uuid);

-- name: requeue repeatable
SELECT r.message_text, r.message_resume, r.message_values
FROM @schema.moorline_place($1::text, $2::text) AS p (device_id)
CROSS JOIN LATERAL @schema.moorline_requeue(
    p.device_id, @schema.moorline_stored_id($1::text, p.device_id, $2::text)) r;

-- name: hold_turn
-- A transaction of the turn locks the device's row until it ends, so that nobody claims the device meanwhile.
SELECT true
FROM @schema.conversation_states s
WHERE s.device_id OPERATOR(pg_catalog.=) $1 AND @claim_stands($2)
FOR UPDATE;

-- name: journal
-- What a turn has to remember in case it runs again.
INSERT INTO @schema.conversation_effects
    (device_id, message_id, position, kind, agent, name, intent, result, turn_no, fence)
SELECT $1::text, $2::text, n.position, n.kind, n.agent, n.name, n.intent::jsonb, n.result::jsonb, $3::bigint,
    $4::bigint
FROM unnest($5::integer[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    AS n (position, kind, agent, name, intent, result);

-- name: journal_result
UPDATE @schema.conversation_effects SET result = $4::jsonb
WHERE device_id = $1::text AND message_id = $2::text AND position = $3::integer;

-- name: journal_take_back
DELETE FROM @schema.conversation_effects
WHERE device_id = $1::text AND message_id = $2::text;

-- name: pending repeatable
SELECT @schema.moorline_pending(@schema.moorline_conversation($1::text));

-- name: question repeatable
SELECT t.interrupt, t.run, (
    -- How turns began that failed after this one.
    SELECT pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
            'message_id', e.message_id,
            'entry', pg_catalog.jsonb_build_object(
                'kind', e.kind, 'agent', e.agent, 'name', e.name, 'intent', e.intent, 'result', e.result))
        ORDER BY e.message_id, e.position)
    FROM @schema.conversation_effects e
    WHERE e.device_id = $1::text AND e.turn_no = $2::bigint + 1 AND e.position < 2 AND e.message_id <> $3::text
) AS attempts
FROM @schema.conversation_turns t
WHERE t.device_id = $1::text AND t.turn_no = $2::bigint AND t.status = 'interrupted'
    AND t.rewound_at IS NULL;

-- name: cancel
SELECT @schema.moorline_cancel(@schema.moorline_conversation($1::text));

-- name: stop repeatable
SELECT p.device_id, @schema.moorline_stored_id($1::text, p.device_id, $2::text) AS message_id
FROM @schema.moorline_place($1::text, $2::text) AS p (device_id)
WHERE @schema.moorline_stop(p.device_id, @schema.moorline_stored_id($1::text, p.device_id, $2::text));

-- name: stopped repeatable
-- Of the messages of running turns, those that were stopped.
SELECT m.device_id, m.message_id
FROM unnest($1::text[], $2::text[]) AS r (device_id, message_id)
JOIN @schema.conversation_messages m ON m.device_id = r.device_id AND m.message_id = r.message_id
WHERE m.stopped;

-- name: known repeatable
SELECT @schema.moorline_known($1::text);

-- name: transcript repeatable
-- The last $3 turns before the turn $2, oldest first; null: all of them. With $4 those of the device's own conversation,
-- unless it is somebody else's by now; with $5 also those that were rewound.
WITH conversation AS (
    SELECT @schema.moorline_conversation($1::text) AS device_id WHERE NOT $4::boolean
    UNION ALL
    SELECT $1::text
    WHERE $4::boolean AND NOT @schema.moorline_is_others($1::text)
), page AS (
    SELECT t.turn_no, t.agent, t.reply, t.handoffs, t.usage, t.interrupt, t.changes, t.started_at, t.committed_at,
        t.rewound_at
    FROM @schema.conversation_turns t
    WHERE t.device_id = (SELECT c.device_id FROM conversation c) AND ($2::bigint IS NULL OR t.turn_no < $2::bigint)
        AND ($5::boolean OR t.rewound_at IS NULL)
    ORDER BY t.turn_no DESC
    LIMIT $3::integer
), said AS (
    SELECT m.turn_no,
        pg_catalog.array_agg(@schema.moorline_given_id(m.address, m.message_id) ORDER BY m.arrival) AS message_ids,
        pg_catalog.array_agg(m.text ORDER BY m.arrival) AS texts,
        pg_catalog.max(m.resume->>'by'::text) AS by
    FROM @schema.conversation_messages m
    WHERE m.device_id = (SELECT c.device_id FROM conversation c)
        AND m.turn_no >= (SELECT pg_catalog.min(p.turn_no) FROM page p)
        AND m.turn_no <= (SELECT pg_catalog.max(p.turn_no) FROM page p)
    GROUP BY m.turn_no
)
SELECT p.turn_no, p.agent, p.reply, p.handoffs, p.usage, p.interrupt, p.changes, p.started_at, p.committed_at,
    p.rewound_at,
    coalesce(s.message_ids, '{}'::text[]) AS message_ids, coalesce(s.texts, '{}'::text[]) AS texts, s.by
FROM page p
LEFT JOIN said s ON s.turn_no = p.turn_no
ORDER BY p.turn_no;

-- name: orphaned repeatable
-- Devices with an open turn, or with a message that waited in a process that is gone; begin finds out whether the turn
-- was abandoned.
SELECT s.device_id::text AS device_id FROM @schema.conversation_states s WHERE s.claim_id IS NOT NULL
UNION
SELECT m.device_id
FROM @schema.conversation_messages m
WHERE m.queued AND m.waiter_until <= pg_catalog.statement_timestamp()
ORDER BY device_id;

-- name: dead_letters repeatable
-- Messages that were set aside, newest first.
SELECT coalesce(m.address, m.device_id) AS device_id, @schema.moorline_given_id(m.address, m.message_id) AS message_id,
    m.attempts, m.error, m.received_at
FROM @schema.conversation_messages m
WHERE m.status = 'dead'
ORDER BY m.received_at DESC;

-- name: conversation repeatable
SELECT @schema.moorline_conversation($1::text);

-- name: kept_turns repeatable
-- The turns of a conversation whose state is kept, newest first, with the checkpoint that stood after each in a namespace;
-- none before the first in it.
SELECT k.turn_no, o.checkpoint_id
FROM (
    SELECT DISTINCT c.turn_no
    FROM @schema.conversation_checkpoints c
    CROSS JOIN (
        SELECT pg_catalog.max(t.turn_no) AS turn_no FROM @schema.conversation_turns t WHERE t.device_id = $1::text
    ) l
    WHERE c.device_id = $1::text AND c.checkpoint_ns = ''::text AND c.turn_no > 0
        AND c.turn_no > l.turn_no - l.turn_no % $2::bigint - $2::bigint
) k
CROSS JOIN LATERAL (
    SELECT c.checkpoint_id
    FROM @schema.conversation_checkpoints c
    WHERE c.device_id = $1::text AND c.checkpoint_ns = $3::text AND c.turn_no > 0 AND c.turn_no <= k.turn_no
    ORDER BY c.turn_no DESC, c.checkpoint_id DESC
    LIMIT 1
) o
ORDER BY k.turn_no DESC;

-- name: rewind repeatable
SELECT @schema.moorline_rewind($1::text, $2::bigint, $3::integer);

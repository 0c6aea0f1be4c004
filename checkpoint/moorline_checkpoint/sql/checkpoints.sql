-- Checkpoints as a run writes and reads them.
--
-- conversation_states is only ever compared with a parameter of its own, because its device_id is a uuid in
-- some databases that had the table before; the other tables have text.

-- name: put_checkpoint repeatable
-- A checkpoint, the channel values that are new with it, and the head of its namespace where one is recorded.
WITH put_values AS (
    INSERT INTO @schema.conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
    SELECT $1, v.ns, v.channel, v.version, v.type, v.blob
    FROM unnest($10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[])
        AS v (ns, channel, version, type, blob)
    ON CONFLICT (device_id, checkpoint_ns, channel, version) DO NOTHING
), moved_head AS (
    UPDATE @schema.conversation_states s
    SET heads = jsonb_set(s.heads, ARRAY[$3::text], to_jsonb($4::text))
    WHERE s.device_id = $2 AND s.heads ? $3::text
)
INSERT INTO @schema.conversation_checkpoints AS c
    (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions)
VALUES ($1::text, $3::text, $4::text, $5, $6, $7, $8::jsonb, $9::jsonb)
ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO UPDATE
SET type = excluded.type,
    checkpoint = excluded.checkpoint,
    metadata = excluded.metadata,
    versions = excluded.versions;

-- name: put_writes repeatable
-- What a task wrote; $2 says whether it replaces what the task wrote there before.
INSERT INTO @schema.conversation_writes AS w
    (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
SELECT $1::text, n.ns, n.id, n.task, n.idx, n.path, n.channel, n.type, n.blob
FROM unnest(
        $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[], $8::text[], $9::text[], $10::bytea[]
    ) AS n (ns, id, task, idx, path, channel, type, blob)
ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
SET channel = excluded.channel,
    type = excluded.type,
    blob = excluded.blob
WHERE $2::boolean;

-- name: get_checkpoint repeatable
-- One checkpoint with its values and writes: the one asked for, else the recorded head of its namespace, else the
-- greatest ID.
SELECT c.device_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
    c.versions, c.value_channels, c.value_versions, c.value_types, c.value_blobs, c.write_tasks, c.write_idxs,
    c.write_paths, c.write_channels, c.write_types, c.write_blobs
FROM @schema.moorline_checkpoint_1($1::text, $3::text, coalesce(
    $4::text,
    (SELECT st.heads ->> $3::text FROM @schema.conversation_states st WHERE st.device_id = $2),
    (
        SELECT l.checkpoint_id
        FROM @schema.conversation_checkpoints l
        WHERE l.device_id = $1::text AND l.checkpoint_ns = $3::text
        ORDER BY l.checkpoint_id DESC
        LIMIT 1
    ))) c;

-- name: list_checkpoints repeatable
-- A page of checkpoints, newest first, from below the last one of the page before ($6 to $8). A null admits
-- everything: device, namespace, ID, what must be in the metadata, and the ID to stay below.
SELECT c.device_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
    c.versions, c.value_channels, c.value_versions, c.value_types, c.value_blobs, c.write_tasks, c.write_idxs,
    c.write_paths, c.write_channels, c.write_types, c.write_blobs
FROM (
    SELECT l.device_id, l.checkpoint_ns, l.checkpoint_id
    FROM @schema.conversation_checkpoints l
    WHERE ($1::text IS NULL OR l.device_id = $1::text)
        AND ($2::text IS NULL OR l.checkpoint_ns = $2::text)
        AND ($3::text IS NULL OR l.checkpoint_id = $3::text)
        AND ($4::jsonb IS NULL OR l.metadata @> $4::jsonb)
        AND ($5::text IS NULL OR l.checkpoint_id < $5::text)
        AND ($6::text IS NULL
            OR (l.checkpoint_id, l.checkpoint_ns, l.device_id) < ($6::text, $7::text, $8::text))
    ORDER BY l.checkpoint_id DESC, l.checkpoint_ns DESC, l.device_id DESC
    LIMIT $9::integer
) p
CROSS JOIN LATERAL @schema.moorline_checkpoint_1(p.device_id, p.checkpoint_ns, p.checkpoint_id) c
ORDER BY c.checkpoint_id DESC, c.checkpoint_ns DESC, c.device_id DESC;

-- name: get_history repeatable
-- What the given channels' values at a checkpoint (chosen as above) are made of.
SELECT h.depth, h.checkpoint_id, h.task_id, h.idx, h.task_path, h.channel, h.version, h.type, h.blob
FROM @schema.moorline_history_1($1::text, $3::text, coalesce(
    $4::text,
    (SELECT st.heads ->> $3::text FROM @schema.conversation_states st WHERE st.device_id = $2),
    (
        SELECT l.checkpoint_id
        FROM @schema.conversation_checkpoints l
        WHERE l.device_id = $1::text AND l.checkpoint_ns = $3::text
        ORDER BY l.checkpoint_id DESC
        LIMIT 1
    )), $5::text[]) h;

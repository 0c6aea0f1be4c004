-- Checkpoints as a run writes and reads them. The functions are documented where they are created, in the migrations.

-- name: put repeatable
SELECT l.device
FROM @schema.moorline_put(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[],
    $15::text[], $16::text[], $17::text[], $18::text[], $19::integer[], $20::text[], $21::text[], $22::text[],
    $23::bytea[], $24::boolean[]) AS l (device);

-- name: get_checkpoints repeatable
SELECT c.place, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
    c.versions, c.value_channels, c.value_versions, c.value_types, c.value_blobs, c.write_tasks, c.write_idxs,
    c.write_paths, c.write_channels, c.write_types, c.write_blobs
FROM @schema.moorline_checkpoints($1::text[], $2::text[], $3::text[]) c;

-- name: list_checkpoints repeatable
-- The keys of a page of checkpoints, newest first, continuing after the last one of the page before ($6 to $8). A null
-- matches everything: device, namespace, ID, what the metadata must contain, and the ID to stay below.
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
LIMIT $9::integer;

-- name: get_history repeatable
-- What the values of the given channels are made of, at a checkpoint that is chosen as in get_checkpoints.
SELECT h.depth, h.checkpoint_id, h.task_id, h.idx, h.task_path, h.channel, h.version, h.type, h.blob
FROM @schema.moorline_history(
    $1::text, $2::text, @schema.moorline_head($1::text, $2::text, $3::text), $4::text[]) h;

-- name: get_values repeatable
-- Values by channel and version; a channel without a row has no value.
SELECT v.channel, v.version, v.type, v.blob
FROM unnest($3::text[], $4::text[]) AS n (channel, version)
CROSS JOIN LATERAL (
    SELECT s.channel, s.version, s.type, s.blob
    FROM @schema.conversation_values s
    WHERE s.device_id = $1::text AND s.checkpoint_ns = $2::text AND s.channel = n.channel AND s.version = n.version
    LIMIT 1
) v;

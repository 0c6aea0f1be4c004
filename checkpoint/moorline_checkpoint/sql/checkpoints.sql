-- Checkpoints as a run writes and reads them.
--
-- conversation_states is only ever compared with a parameter of its own, because its device_id is a uuid in
-- some databases that had the table before; the other tables have text.

-- name: put repeatable
-- What the calls of many devices store, in arrays: checkpoints ($2 to $9), the channel values that are new with them
-- ($10 to $15) and what tasks wrote ($16 to $25, whose last says whether it replaces what the task wrote there before).
-- A checkpoint becomes the head of its namespace where one is recorded. $1 has the keys of the checkpoints' devices.
-- Gives the devices whose heads somebody else has locked: of their checkpoints and values nothing is stored.
WITH recorded AS (
    SELECT s.device_id
    FROM @schema.conversation_states s
    WHERE s.device_id = ANY ($1) AND s.heads ?| $3::text[]
), held AS (
    SELECT s.device_id, s.heads
    FROM @schema.conversation_states s
    WHERE s.device_id = ANY ($1) AND s.heads ?| $3::text[]
    FOR UPDATE SKIP LOCKED
), locked AS (
    SELECT ($2::text[])[array_position($1, r.device_id)] AS device
    FROM recorded r
    WHERE r.device_id NOT IN (SELECT h.device_id FROM held h)
), moved_heads AS (
    UPDATE @schema.conversation_states s
    SET heads = s.heads || m.heads
    FROM (
        SELECT h.device_id, jsonb_object_agg(n.ns, n.id ORDER BY n.id) AS heads
        FROM held h
        JOIN unnest($2::text[], $3::text[], $4::text[]) AS n (device, ns, id)
            ON n.device = ($2::text[])[array_position($1, h.device_id)] AND h.heads ? n.ns
        GROUP BY h.device_id
    ) m
    WHERE s.device_id = m.device_id
), put_checkpoints AS (
    INSERT INTO @schema.conversation_checkpoints AS c
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions)
    SELECT n.device, n.ns, n.id, n.parent, n.type, n.body, n.metadata::jsonb, n.versions::jsonb
    FROM unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[]
        ) AS n (device, ns, id, parent, type, body, metadata, versions)
    WHERE n.device <> ALL (ARRAY(SELECT l.device FROM locked l))
    ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO UPDATE
    SET type = excluded.type,
        checkpoint = excluded.checkpoint,
        metadata = excluded.metadata,
        versions = excluded.versions
), put_values AS (
    INSERT INTO @schema.conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
    SELECT n.device, n.ns, n.channel, n.version, n.type, n.blob
    FROM unnest($10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bytea[])
        AS n (device, ns, channel, version, type, blob)
    WHERE n.device <> ALL (ARRAY(SELECT l.device FROM locked l))
    ON CONFLICT (device_id, checkpoint_ns, channel, version) DO NOTHING
), put_writes AS (
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
    SELECT n.device, n.ns, n.id, n.task, n.idx, n.path, n.channel, n.type, n.blob
    FROM unnest(
            $16::text[], $17::text[], $18::text[], $19::text[], $20::integer[], $21::text[], $22::text[], $23::text[],
            $24::bytea[], $25::boolean[]
        ) AS n (device, ns, id, task, idx, path, channel, type, blob, replaces)
    WHERE NOT n.replaces
    ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING
), replaced_writes AS (
    INSERT INTO @schema.conversation_writes AS w
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
    SELECT n.device, n.ns, n.id, n.task, n.idx, n.path, n.channel, n.type, n.blob
    FROM unnest(
            $16::text[], $17::text[], $18::text[], $19::text[], $20::integer[], $21::text[], $22::text[], $23::text[],
            $24::bytea[], $25::boolean[]
        ) AS n (device, ns, id, task, idx, path, channel, type, blob, replaces)
    WHERE n.replaces
    ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
    SET channel = excluded.channel,
        type = excluded.type,
        blob = excluded.blob
)
SELECT l.device FROM locked l;

-- name: get_checkpoints repeatable
-- Checkpoints of many devices with their values and writes: of each place the one asked for, else the recorded head of
-- its namespace, else the greatest ID. $1 has the keys of the devices; what type they have, `key` tells.
WITH key AS (
    SELECT s.device_id FROM @schema.conversation_states s WHERE s.device_id = ANY ($1)
)
SELECT n.place, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
    c.versions, c.value_channels, c.value_versions, c.value_types, c.value_blobs, c.write_tasks, c.write_idxs,
    c.write_paths, c.write_channels, c.write_types, c.write_blobs
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS n (device, ns, id, place)
CROSS JOIN LATERAL @schema.moorline_checkpoint_1(n.device, n.ns, coalesce(
    n.id,
    (SELECT st.heads ->> n.ns FROM @schema.conversation_states st WHERE st.device_id = ($1)[n.place]),
    (
        SELECT l.checkpoint_id
        FROM @schema.conversation_checkpoints l
        WHERE l.device_id = n.device AND l.checkpoint_ns = n.ns
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
FROM @schema.moorline_history_2($1::text, $3::text, coalesce(
    $4::text,
    (SELECT st.heads ->> $3::text FROM @schema.conversation_states st WHERE st.device_id = $2),
    (
        SELECT l.checkpoint_id
        FROM @schema.conversation_checkpoints l
        WHERE l.device_id = $1::text AND l.checkpoint_ns = $3::text
        ORDER BY l.checkpoint_id DESC
        LIMIT 1
    )), $5::text[]) h;

-- Files: what came with messages.

-- name: place_of_files repeatable
-- The conversation of the person $2, or else that of the device $1.
SELECT coalesce(
    (SELECT p.device_id FROM @schema.moorline_people p WHERE p.person_id = $2::text),
    @schema.moorline_conversation($1::text));

-- name: keep_file repeatable
SELECT @schema.moorline_keep_file($1::text, $2::text, $3::text, $4::bytea, $5::bigint);

-- name: read_files repeatable
SELECT f.hash, f.data
FROM @schema.conversation_files f
WHERE f.device_id = $1::text AND f.hash = ANY ($2::text[]);

-- name: find_file repeatable
SELECT f.type, f.data
FROM @schema.conversation_files f
WHERE f.device_id = @schema.moorline_conversation($1::text) AND f.hash = $2::text;

-- name: expire_files
SELECT @schema.moorline_expire_files($1::integer);

-- name: message_text repeatable
-- The text of a message that the device has sent, as it is stored.
SELECT m.text
FROM @schema.moorline_place($1::text, $2::text) AS p (device_id)
JOIN @schema.conversation_messages m
    ON m.device_id = p.device_id AND m.message_id = @schema.moorline_stored_id($1::text, p.device_id, $2::text);

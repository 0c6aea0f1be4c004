-- People: devices that lead to a conversation, the codes by which they join it, and erasing them. The functions are
-- documented where they are created, in the migrations.

-- name: know_person repeatable
SELECT @schema.moorline_know_person($1::text, $2::text, $3::integer);

-- name: new_code repeatable
SELECT @schema.moorline_new_code($1::text, $2::bytea, $3::double precision, $4::integer);

-- name: redeem
SELECT @schema.moorline_redeem($1::text, $2::bytea, $3::bytea[], $4::integer[], $5::double precision);

-- name: leaving
SELECT @schema.moorline_leaving($1::text, $2::integer);

-- name: devices repeatable
SELECT d.device_id, d.linked_at FROM @schema.moorline_devices($1::text) d;

-- name: erase_device
SELECT @schema.moorline_erase_device($1::text, $2::integer);

-- name: erase_person
SELECT @schema.moorline_erase_person($1::text, $2::integer);

-- name: forget_codes
SELECT @schema.moorline_forget_codes();

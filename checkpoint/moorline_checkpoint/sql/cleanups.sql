-- Cleanups, which one process does at a time. The functions are documented where they are created, in the migrations.

-- name: claim_cleanup repeatable
SELECT @schema.moorline_claim_cleanup($1::uuid, $2::double precision, $3::double precision);

-- name: end_cleanup repeatable
SELECT @schema.moorline_end_cleanup($1::uuid);

-- name: roll_up
SELECT @schema.moorline_roll_up();

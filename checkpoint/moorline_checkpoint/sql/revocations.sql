-- Device tokens: which of them are accepted. `device` is a keyed hash.

-- name: token_key repeatable
SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'token'::text;

-- name: generation repeatable
-- From which generation on a device's tokens are accepted, and the time.
SELECT coalesce((SELECT r.generation FROM @schema.moorline_revocations r WHERE r.device = $1::bytea), 0::bigint)
    AS generation, pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) AS now;

-- name: revoke
SELECT @schema.moorline_revoke($1::bytea);

-- name: forget_revocations
SELECT @schema.moorline_forget_revocations($1::double precision);

-- Whether a replica may be read.

-- name: replica_standing repeatable
-- Run on the replica: whether it follows another server, the moment of the last commit that it has replayed, how far it
-- has replayed, and the key that all copies of a database share.
SELECT pg_catalog.pg_is_in_recovery() AS follows,
    pg_catalog.pg_last_xact_replay_timestamp() AS replayed,
    pg_catalog.clock_timestamp() AS now,
    pg_catalog.pg_last_wal_replay_lsn()::text AS position,
    (SELECT k.key FROM @schema.moorline_keys k WHERE k.name = 'log'::text) AS key;

-- name: nothing_since repeatable
-- Run on the primary: whether it has written nothing behind this position of its log.
SELECT pg_catalog.pg_current_wal_lsn() OPERATOR(pg_catalog.<=) $1::text::pg_lsn;

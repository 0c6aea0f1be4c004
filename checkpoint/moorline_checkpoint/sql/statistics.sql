-- Statistics: what all devices together are doing at a moment.

-- name: session_statistics repeatable
-- The live sessions by agent and by which of the seconds in $1 they have lasted: 0 for less than the first.
SELECT s.active_agent::text AS agent,
    pg_catalog.width_bucket(
        pg_catalog.date_part('epoch', pg_catalog.statement_timestamp() - coalesce(s.locked_at, s.last_active_at)),
        $1::double precision[]) AS place,
    pg_catalog.count(*) AS sessions,
    pg_catalog.sum(
        pg_catalog.date_part('epoch', pg_catalog.statement_timestamp() - coalesce(s.locked_at, s.last_active_at))
    ) AS seconds
FROM @schema.conversation_states s
WHERE s.device_id IS NOT NULL AND @lock_is_live(pg_catalog.statement_timestamp())
GROUP BY 1, 2;

-- name: queue_statistics repeatable
-- The locks that have expired and are still there; the messages that wait for a turn, and for how long the first. One
-- that failed waits for nothing until it is delivered again.
SELECT (SELECT pg_catalog.count(*) FROM @schema.expired_sessions) AS expired,
    pg_catalog.count(*) AS waiting,
    coalesce(
        pg_catalog.date_part('epoch', pg_catalog.statement_timestamp() - pg_catalog.min(m.received_at)), 0
    ) AS oldest
FROM @schema.conversation_messages m
WHERE m.queued AND m.waiter_until IS NOT NULL;

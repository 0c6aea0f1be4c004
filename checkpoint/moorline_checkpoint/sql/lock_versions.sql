-- name: lock_versions repeatable
-- The rows of the devices in $1, with their locks if they are live, and when they were read: at least one row, without
-- a device if there are none. An address that leads elsewhere has no lock of its own. now() is when the statement came
-- in, before anything was read, so whoever reads after a change reads at a later moment than everybody who has not seen
-- it.
SELECT s.device_id::text AS device_id, s.fence, s.leads_to,
    CASE
        WHEN s.leads_to IS NULL AND @lock_is_live(pg_catalog.statement_timestamp()) THEN s.active_agent::text
    END AS active_agent,
    coalesce(s.locked_at, s.last_active_at) AS locked_at, @expires_at AS expires_at,
    n.moment AS read_at
FROM (SELECT pg_catalog.now()) AS n (moment)
LEFT JOIN @schema.conversation_states s ON s.device_id OPERATOR(pg_catalog.=) ANY ($1);

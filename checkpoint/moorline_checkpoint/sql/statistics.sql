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

-- name: figures_period repeatable
-- From when on is counted: the beginning, in UTC, of the day of a moment, or of so long ago; until when; and from when
-- on turns are not in conversation_days yet.
SELECT pg_catalog.date_trunc(
        'day', coalesce($1::timestamptz, pg_catalog.statement_timestamp() - $2::interval), 'UTC') AS since,
    pg_catalog.statement_timestamp() AS until,
    coalesce(
        (SELECT c.rolled_up_to FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text),
        '-infinity'::timestamptz) AS rolled_up_to;

-- name: session_figures repeatable
-- Sessions since $1 by agent, and of all agents together, where the agent is null. A lock that has expired and is still
-- there has ended.
WITH lasted AS (
    SELECT n.agent, n.locked_at, n.ended_at, n.why
    FROM @schema.conversation_sessions n
    WHERE n.ended_at >= $1::timestamptz
    UNION ALL
    SELECT h.agent, h.locked_at, CASE WHEN h.live THEN NULL ELSE h.expires_at END,
        CASE WHEN h.live THEN NULL ELSE 'expired'::text END
    FROM (
        SELECT s.active_agent::text AS agent, coalesce(s.locked_at, s.last_active_at) AS locked_at,
            @expires_at AS expires_at, (@lock_is_live(pg_catalog.statement_timestamp())) AS live
        FROM @schema.conversation_states s
        WHERE s.device_id IS NOT NULL AND s.active_agent IS NOT NULL
    ) h
    WHERE h.live OR h.expires_at >= $1::timestamptz
)
SELECT l.agent, pg_catalog.count(*) FILTER (WHERE l.locked_at >= $1::timestamptz) AS started,
    pg_catalog.count(*) FILTER (WHERE l.why = 'released'::text) AS released,
    pg_catalog.count(*) FILTER (WHERE l.why = 'handed_over'::text) AS handed_over,
    pg_catalog.count(*) FILTER (WHERE l.why = 'started_over'::text) AS started_over,
    pg_catalog.count(*) FILTER (WHERE l.why = 'taken'::text) AS taken,
    pg_catalog.count(*) FILTER (WHERE l.why = 'cleared'::text) AS cleared,
    pg_catalog.count(*) FILTER (WHERE l.why = 'expired'::text) AS expired,
    pg_catalog.percentile_cont(ARRAY[0.5, 0.95]::double precision[]) WITHIN GROUP (
        ORDER BY pg_catalog.date_part('epoch', l.ended_at - l.locked_at)) AS percentiles
FROM lasted l
GROUP BY GROUPING SETS ((l.agent), ())
ORDER BY l.agent NULLS FIRST;

-- name: turn_figures repeatable
-- Turns, people and tokens since the midnight $1 by day, agent and model; those since $2 are not rolled up, and its day
-- is not in the daily totals. The turns and people of an agent are where the model is empty.
WITH recent AS (
    SELECT f.device_id, f.day, f.agent, f.model, pg_catalog.sum(f.turns) AS turns,
        pg_catalog.sum(f.input_tokens) AS input_tokens, pg_catalog.sum(f.output_tokens) AS output_tokens
    FROM (
        SELECT t.device_id, pg_catalog.timezone('UTC', t.committed_at)::date AS day, t.agent, t.model, t.turns,
            t.input_tokens, t.output_tokens
        FROM @schema.turn_figures t
        WHERE t.committed_at >= greatest($1::timestamptz, $2::timestamptz)
    ) f
    GROUP BY f.device_id, f.day, f.agent, f.model
), counted AS (
    SELECT a.day, a.agent, a.model, a.turns, a.people, a.input_tokens, a.output_tokens
    FROM @schema.moorline_days a
    WHERE a.day >= pg_catalog.timezone('UTC', $1::timestamptz)::date AND a.agent <> '*'::text
    UNION ALL
    SELECT d.day, d.agent, d.model, d.turns, CASE WHEN d.turns > 0::bigint THEN 1 ELSE 0 END AS people,
        d.input_tokens, d.output_tokens
    FROM @schema.conversation_days d
    WHERE d.day >= pg_catalog.timezone('UTC', greatest($1::timestamptz, $2::timestamptz))::date
    UNION ALL
    SELECT r.day, r.agent, r.model, r.turns,
        CASE WHEN r.turns > 0::numeric AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_days d
            WHERE d.device_id = r.device_id AND d.day = r.day AND d.agent = r.agent AND d.model = r.model
                AND d.turns > 0::bigint)
        THEN 1 ELSE 0 END,
        r.input_tokens, r.output_tokens
    FROM recent r
)
SELECT c.day, c.agent, c.model, pg_catalog.sum(c.turns)::bigint AS turns, pg_catalog.sum(c.people)::bigint AS people,
    pg_catalog.sum(c.input_tokens)::bigint AS input_tokens, pg_catalog.sum(c.output_tokens)::bigint AS output_tokens
FROM counted c
GROUP BY c.day, c.agent, c.model
ORDER BY c.day, c.agent, c.model;

-- name: day_figures repeatable
-- People since the midnight $1 by day; turns since $2 are not rolled up, and its day is not in the daily totals.
SELECT p.day, pg_catalog.sum(p.people)::bigint AS people
FROM (
    SELECT a.day, a.people
    FROM @schema.moorline_days a
    WHERE a.day >= pg_catalog.timezone('UTC', $1::timestamptz)::date AND a.agent = '*'::text
    UNION ALL
    SELECT u.day, pg_catalog.count(*)
    FROM (
        SELECT d.day, d.device_id
        FROM @schema.conversation_days d
        WHERE d.day >= pg_catalog.timezone('UTC', greatest($1::timestamptz, $2::timestamptz))::date
            AND d.turns > 0::bigint
        UNION
        SELECT pg_catalog.timezone('UTC', t.committed_at)::date, t.device_id
        FROM @schema.conversation_turns t
        WHERE t.committed_at >= greatest($1::timestamptz, $2::timestamptz)
    ) u
    GROUP BY u.day
) p
GROUP BY p.day
HAVING pg_catalog.sum(p.people) > 0::numeric
ORDER BY p.day;

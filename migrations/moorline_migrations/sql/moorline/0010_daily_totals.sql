-- Daily totals: figures of days that are over are read from a few rows. The head of schema.sql explains the table.

CREATE TABLE @schema.moorline_days (
    day           date NOT NULL,
    agent         text NOT NULL,
    model         text NOT NULL,
    turns         bigint NOT NULL,
    people        bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL
);

CREATE INDEX moorline_days_day ON @schema.moorline_days (day);

-- The days that were over before; roll-ups wait meanwhile.
SELECT FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR UPDATE;

INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
    SELECT d.day, d.agent, d.model, pg_catalog.sum(d.turns),
        pg_catalog.count(*) FILTER (WHERE d.turns > 0::bigint), pg_catalog.sum(d.input_tokens),
        pg_catalog.sum(d.output_tokens)
    FROM @schema.conversation_days d
    WHERE d.day < (
        SELECT pg_catalog.timezone('UTC', c.rolled_up_to)::date FROM @schema.moorline_cleanups c)
    GROUP BY d.day, d.agent, d.model
    UNION ALL
    SELECT d.day, '*', '', 0::bigint, pg_catalog.count(DISTINCT d.device_id), 0::bigint, 0::bigint
    FROM @schema.conversation_days d
    WHERE d.day < (
        SELECT pg_catalog.timezone('UTC', c.rolled_up_to)::date FROM @schema.moorline_cleanups c) AND d.turns > 0::bigint
    GROUP BY d.day;

-- Add days: counts a device's days that are over in the daily totals: sign 1, or -1 before they are removed. The caller
-- has locked the row of the cleanup.
CREATE FUNCTION @schema.moorline_add_days(device text, before date, sign integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    added_up_to date := (
        SELECT pg_catalog.timezone('UTC', c.rolled_up_to)::date
        FROM @schema.moorline_cleanups c
        WHERE c.name = 'cleanup'::text);
BEGIN
    INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
        SELECT d.day, d.agent, d.model, sign * d.turns, CASE WHEN d.turns > 0::bigint THEN sign ELSE 0 END,
            sign * d.input_tokens, sign * d.output_tokens
        FROM @schema.conversation_days d
        WHERE d.device_id = device AND d.day < added_up_to AND coalesce(d.day < before, true)
        UNION ALL
        SELECT DISTINCT d.day, '*', '', 0::bigint, sign, 0::bigint, 0::bigint
        FROM @schema.conversation_days d
        WHERE d.device_id = device AND d.day < added_up_to AND coalesce(d.day < before, true)
            AND d.turns > 0::bigint;
END
$$;

-- Remove days: removes a device's days, or those before a day. Returns how many rows there were.
CREATE FUNCTION @schema.moorline_remove_days(device text, before date) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    gone bigint;
BEGIN
    -- A roll-up that runs would bring them back.
    PERFORM 1 FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    PERFORM @schema.moorline_add_days(device, before, -1);
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device AND coalesce(d.day < before, true);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

-- Roll up: adds the turns of the next hour to conversation_days, and with the last hour of a day that day to
-- moorline_days. Returns false, and does nothing, if the hour has not been over for ten minutes: until then the commit
-- of one of its turns may still be on its way. However many call it, each hour is added once, because the row with the
-- moment is locked.
CREATE OR REPLACE FUNCTION @schema.moorline_roll_up() RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    since timestamptz;
    next timestamptz;
    moment timestamptz;
    hour interval := interval '1 hour';
    own_day date;
BEGIN
    SELECT c.rolled_up_to INTO since FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    moment := pg_catalog.clock_timestamp();
    IF since IS NULL THEN
        since := pg_catalog.date_trunc('hour', coalesce(
            (SELECT pg_catalog.min(t.committed_at) FROM @schema.conversation_turns t), moment), 'UTC');
    END IF;
    next := since + hour;
    IF moment - next < interval '10 minutes' THEN
        RETURN false;
    END IF;
    INSERT INTO @schema.conversation_days AS d (device_id, day, agent, model, turns, input_tokens, output_tokens)
        SELECT f.device_id, pg_catalog.timezone('UTC', since)::date, f.agent, f.model, pg_catalog.sum(f.turns),
            pg_catalog.sum(f.input_tokens), pg_catalog.sum(f.output_tokens)
        FROM @schema.turn_figures f
        WHERE f.committed_at >= since AND f.committed_at < next
        GROUP BY f.device_id, f.agent, f.model
        ON CONFLICT (device_id, day, agent, model) DO UPDATE
        SET turns = d.turns + excluded.turns,
            input_tokens = d.input_tokens + excluded.input_tokens,
            output_tokens = d.output_tokens + excluded.output_tokens;
    own_day := pg_catalog.timezone('UTC', since)::date;
    IF pg_catalog.timezone('UTC', next)::date > own_day THEN
        INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
            SELECT d.day, d.agent, d.model, pg_catalog.sum(d.turns),
                pg_catalog.count(*) FILTER (WHERE d.turns > 0::bigint), pg_catalog.sum(d.input_tokens),
                pg_catalog.sum(d.output_tokens)
            FROM @schema.conversation_days d
            WHERE d.day = own_day
            GROUP BY d.day, d.agent, d.model
            UNION ALL
            SELECT d.day, '*', '', 0::bigint, pg_catalog.count(DISTINCT d.device_id), 0::bigint, 0::bigint
            FROM @schema.conversation_days d
            WHERE d.day = own_day AND d.turns > 0::bigint
            GROUP BY d.day;
        -- What erasures have taken off is added to what was there.
        WITH gone AS (
            DELETE FROM @schema.moorline_days d
            RETURNING d.day, d.agent, d.model, d.turns, d.people, d.input_tokens, d.output_tokens
        )
        INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
            SELECT g.day, g.agent, g.model, pg_catalog.sum(g.turns), pg_catalog.sum(g.people),
                pg_catalog.sum(g.input_tokens), pg_catalog.sum(g.output_tokens)
            FROM gone g
            GROUP BY g.day, g.agent, g.model
            HAVING pg_catalog.sum(g.people) > 0::numeric OR pg_catalog.sum(g.input_tokens) > 0::numeric
                OR pg_catalog.sum(g.output_tokens) > 0::numeric;
    END IF;
    UPDATE @schema.moorline_cleanups c SET rolled_up_to = next WHERE c.name = 'cleanup'::text;
    RETURN true;
END
$$;

-- Recount: makes the rows of a device in conversation_days anew from its turns, after rows of other times were stored.
CREATE OR REPLACE FUNCTION @schema.moorline_recount(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    until timestamptz;
BEGIN
    SELECT c.rolled_up_to INTO until FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    PERFORM @schema.moorline_remove_days(device, NULL::date);
    INSERT INTO @schema.conversation_days (device_id, day, agent, model, turns, input_tokens, output_tokens)
        SELECT device, f.day, f.agent, f.model, pg_catalog.sum(f.turns), pg_catalog.sum(f.input_tokens),
            pg_catalog.sum(f.output_tokens)
        FROM (
            SELECT pg_catalog.timezone('UTC', t.committed_at)::date AS day, t.agent, t.model, t.turns, t.input_tokens,
                t.output_tokens
            FROM @schema.turn_figures t
            WHERE t.device_id = device AND t.committed_at < until
        ) f
        GROUP BY f.day, f.agent, f.model;
    PERFORM @schema.moorline_add_days(device, NULL::date, 1);
END
$$;

-- Erase: removes everything of a device from these tables; an open turn becomes stale. First the row is blanked, or a
-- blank one inserted: this waits for a turn that is committing, so that its rows are seen, and blocks new turns until
-- the end. If another table refers to the row, it stays, blank.
CREATE OR REPLACE FUNCTION @schema.moorline_erase(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    IF key IS NULL THEN
        PERFORM @schema.moorline_hold(device);
    ELSE
        INSERT INTO @schema.conversation_states AS s (device_id) VALUES (key)
            ON CONFLICT (device_id) DO UPDATE
            SET active_agent = NULL,
                locked_at = NULL,
                session_ttl = DEFAULT,
                call_ttl = NULL,
                person_ttl = NULL,
                session_until = NULL,
                last_active_at = NULL,
                last_turn_no = 0,
                claim_id = NULL,
                claimed_at = NULL,
                lease_until = NULL,
                heads = '{}',
                arrivals = 0,
                last_worker = NULL,
                worker_turns = 0,
                open_messages = NULL,
                unfinished = false,
                leads_to = NULL,
                linked_at = NULL,
                earlier = NULL,
                earlier_marks = NULL,
                given_away = NULL,
                notices = NULL;
    END IF;
    DELETE FROM @schema.moorline_people p WHERE p.device_id = device;
    DELETE FROM @schema.moorline_codes c WHERE c.device_id = device;
    DELETE FROM @schema.conversation_messages m WHERE m.device_id = device;
    DELETE FROM @schema.conversation_turns t WHERE t.device_id = device;
    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device;
    PERFORM @schema.moorline_remove_days(device, NULL::date);
    DELETE FROM @schema.conversation_effects e WHERE e.device_id = device;
    DELETE FROM @schema.conversation_facts f WHERE f.device_id = device;
    DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
    DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
    DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
    DELETE FROM @schema.conversation_files f WHERE f.device_id = device;
    BEGIN
        DELETE FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key;
        -- Deferred references are checked now rather than at the end of the transaction.
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN foreign_key_violation THEN
        NULL;
    END;
END
$$;

-- Retire: removes what a device has that is older than so many days, at most `most` turns in one call, and returns the
-- number of rows removed. Call it again until it removes fewer than `most`.
--
-- Nothing is removed while a turn is open or another transaction has the device's row. A message is removed with its
-- turn; one without a turn when it is old enough and no caller waits with it. Effects are removed with their message at
-- the latest. As long as the device is in use, its agents keep what their heads are made of. A device that has been out
-- of use for that long keeps only its lock and its counters, unless a question of the agent that holds the session can
-- still be answered.
CREATE OR REPLACE FUNCTION @schema.moorline_retire(device text, days double precision, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    s @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    oldest timestamptz := moment - days * interval '1 day';
    oldest_day date := pg_catalog.timezone('UTC', oldest)::date;
    used_at timestamptz;
    asks boolean;
    last_turn bigint;
    removed bigint;
    gone bigint;
BEGIN
    SELECT l.* INTO s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.claim_id IS NULL
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    removed := @schema.moorline_stored(device);
    used_at := greatest(s.last_active_at, s.locked_at);
    asks := EXISTS (
            SELECT 1 FROM @schema.conversation_turns t
            WHERE t.device_id = device AND t.turn_no = s.last_turn_no AND t.status = 'interrupted')
        AND s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');

    -- Turn numbers follow the order of the commits.
    SELECT pg_catalog.max(t.turn_no) INTO last_turn
        FROM (
            SELECT n.turn_no, n.committed_at
            FROM @schema.conversation_turns n
            WHERE n.device_id = device
            ORDER BY n.turn_no
            LIMIT most
        ) t
        WHERE t.committed_at < oldest AND NOT (asks AND t.turn_no = s.last_turn_no);
    DELETE FROM @schema.conversation_messages m
        WHERE m.device_id = device
            AND (m.status IN ('done', 'interrupted') AND m.turn_no <= last_turn
                OR (m.status = 'dead' OR m.queued AND m.waiter_until IS NULL) AND m.received_at < oldest);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    DELETE FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no <= last_turn;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    DELETE FROM @schema.conversation_effects e
        WHERE e.device_id = device AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = e.message_id
                AND (e.recorded_at >= oldest OR m.status IN ('waiting', 'running')));
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;

    DELETE FROM @schema.conversation_files f
        WHERE f.device_id = device AND f.stored_at < oldest AND NOT asks AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device AND n.ended_at < oldest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    removed := removed + @schema.moorline_remove_days(device, oldest_day);

    -- A device without turns is not the runtime's, and nothing else records when a device was in use.
    IF s.last_turn_no > 0 AND used_at < oldest AND NOT asks AND NOT EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND (m.queued OR m.received_at >= oldest))
    THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
        DELETE FROM @schema.conversation_facts f WHERE f.device_id = device;
        GET DIAGNOSTICS gone = ROW_COUNT;
        removed := removed + gone;
        UPDATE @schema.conversation_states l
            SET heads = '{}'
            WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.heads <> '{}';
    ELSIF last_turn IS NOT NULL THEN
        PERFORM @schema.moorline_prune(device, s.heads, last_turn);
    END IF;
    RETURN removed - @schema.moorline_stored(device);
END
$$;

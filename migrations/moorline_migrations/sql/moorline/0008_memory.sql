-- Memory: facts, which agents remember about a person; how a turn changed the lock; and rewinding a conversation. The
-- head of schema.sql explains tables and columns.

CREATE TABLE @schema.conversation_facts (
    device_id  text,
    namespace  text COLLATE "C",
    key        text,
    value      jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ttl        double precision,
    expires_at timestamptz,
    PRIMARY KEY (device_id, namespace, key)
);

CREATE INDEX conversation_facts_expires_at ON @schema.conversation_facts (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE @schema.conversation_turns
    ADD COLUMN changes jsonb,
    ADD COLUMN rewound_at timestamptz;

-- Keep facts: stores a list of facts in its order: each with namespace, key, value (null: deletes the fact) and ttl in
-- minutes. One with `read` is a fact that was read: if it expires, it now does so after its whole time to live again.
-- If live_only, one that has expired already stays so.
CREATE FUNCTION @schema.moorline_keep_facts(device text, facts jsonb, moment timestamptz, live_only boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    fact record;
    expiry timestamptz;
BEGIN
    FOR fact IN
        SELECT n.namespace, n.key, n.value, n.ttl, n.read
        FROM pg_catalog.jsonb_array_elements(facts) WITH ORDINALITY AS e (item, position)
        CROSS JOIN LATERAL pg_catalog.jsonb_to_record(e.item) AS n (
            namespace text, key text, value jsonb, ttl double precision, read boolean)
        ORDER BY e.position
    LOOP
        IF fact.read THEN
            UPDATE @schema.conversation_facts f
                SET expires_at = moment + f.ttl * interval '1 minute'
                WHERE f.device_id = device AND f.namespace = fact.namespace AND f.key = fact.key
                    AND f.ttl IS NOT NULL AND (NOT live_only OR f.expires_at > moment);
        ELSIF fact.value IS NULL THEN
            DELETE FROM @schema.conversation_facts f
                WHERE f.device_id = device AND f.namespace = fact.namespace AND f.key = fact.key;
        ELSE
            expiry := moment + fact.ttl * interval '1 minute';
            INSERT INTO @schema.conversation_facts AS f
                (device_id, namespace, key, value, created_at, updated_at, ttl, expires_at)
                VALUES (device, fact.namespace, fact.key, fact.value, moment, moment, fact.ttl, expiry)
                ON CONFLICT (device_id, namespace, key) DO UPDATE
                SET value = excluded.value,
                    updated_at = excluded.updated_at,
                    ttl = excluded.ttl,
                    expires_at = excluded.expires_at;
        END IF;
    END LOOP;
END
$$;

-- Expire facts: removes up to `most` facts that have expired. One that somebody else is writing is left. Returns how
-- many were removed.
CREATE FUNCTION @schema.moorline_expire_facts(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    fact record;
    moment timestamptz := pg_catalog.clock_timestamp();
    removed integer := 0;
BEGIN
    FOR fact IN
        SELECT f.device_id, f.namespace, f.key
        FROM @schema.conversation_facts f
        WHERE f.expires_at <= moment
        LIMIT most
    LOOP
        PERFORM 1
            FROM @schema.conversation_facts f
            WHERE f.device_id = fact.device_id AND f.namespace = fact.namespace AND f.key = fact.key
                AND f.expires_at <= moment
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        DELETE FROM @schema.conversation_facts f
            WHERE f.device_id = fact.device_id AND f.namespace = fact.namespace AND f.key = fact.key;
        removed := removed + 1;
    END LOOP;
    RETURN removed;
END
$$;

-- Commit: commits a batch of turns, each at one place of the arrays. Outcomes: committed, lock_kept (committed, except
-- that somebody else set or cleared the lock meanwhile), stale (the device has another claim or none, and nothing was
-- written) or locked. Idempotent: a turn that was committed before, and whose acknowledgement was lost, answers
-- committed again. `ended` are the sessions that ended with the turn, as they are told; null if none did. Checkpoints,
-- values and writes come as one array for each column; the first array of each holds the place of the turn. Rows with
-- the same keys may have been left by the turn before, which stopped to ask.
CREATE OR REPLACE FUNCTION @schema.moorline_commit_2(
    devices text[], claims uuid[], fences bigint[], turns text[], keep_turns integer,
    c_place integer[], c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[],
    c_versions text[],
    v_place integer[], v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_place integer[], w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[],
    w_type text[], w_blob bytea[]
) RETURNS TABLE (place integer, outcome text, ended jsonb)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    device text;
    claim uuid;
    fence_of_turn bigint;
    key @schema.conversation_states.device_id%TYPE;
    state @schema.conversation_states;
    turn record;
    number bigint;
    still boolean;
    kept boolean;
    renewed boolean;
    dropped text[];
    numbers bigint[] := pg_catalog.array_fill(NULL::bigint, ARRAY[pg_catalog.cardinality(devices)]);
    moment timestamptz;
BEGIN
    FOR own, device IN
        SELECT n.place::integer, n.device
        FROM pg_catalog.unnest(devices) WITH ORDINALITY AS n (device, place)
        ORDER BY n.device, n.place
    LOOP
        key := device;
        claim := claims[own];
        place := own;
        ended := NULL;
        SELECT t.* INTO STRICT turn
            FROM pg_catalog.jsonb_to_record(turns[own]::jsonb) AS t (
                turn_no bigint, status text, agent text, reply text, handoffs text[], usage jsonb, interrupt jsonb,
                attempts integer, started_at timestamptz, active_agent text, lock_taken boolean, session_ttl integer,
                call_ttl integer, session_until timestamptz, ended jsonb, heads jsonb, messages text[],
                journal_of text, holder text, run jsonb, changes jsonb, facts jsonb);
        SELECT s.* INTO state
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            outcome := CASE
                WHEN EXISTS (
                    SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key)
                THEN 'locked'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        ELSIF state.claim_id IS DISTINCT FROM claim THEN
            SELECT t.committed_at INTO moment
                FROM @schema.conversation_turns t
                WHERE t.device_id = device AND t.turn_no = turn.turn_no AND t.claim_id = claim;
            IF FOUND THEN
                outcome := 'committed';
                -- An expired lock that the turn found has ended before.
                ended := (
                    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                        'agent', n.agent, 'why', n.why, 'seconds',
                        pg_catalog.date_part('epoch', n.ended_at - n.locked_at)) ORDER BY n.position)
                    FROM @schema.conversation_sessions n
                    WHERE n.device_id = device AND n.ended_at = moment);
            ELSE
                outcome := 'stale';
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- Code of before this outcome sends no holder and is not told.
        kept := coalesce(
            turn.holder IS NOT NULL AND state.active_agent::text IS DISTINCT FROM turn.holder
                OR state.active_agent IS NOT NULL
                    AND greatest(state.last_active_at, state.locked_at) > state.claimed_at,
            false);
        outcome := CASE WHEN kept AND turns[own]::jsonb ? 'holder'::text THEN 'lock_kept' ELSE 'committed' END;
        moment := pg_catalog.clock_timestamp();
        IF NOT kept AND state.active_agent IS NOT NULL AND turn.holder IS NULL THEN
            ended := pg_catalog.jsonb_build_array(@schema.moorline_end_session(state, 'expired', moment));
        END IF;
        IF NOT kept AND turn.ended IS NOT NULL THEN
            -- The first may have begun before the turn.
            ended := coalesce(ended, '[]'::jsonb) || (
                SELECT pg_catalog.jsonb_agg(@schema.moorline_record_session(
                    device, n.agent,
                    CASE WHEN n.position = 1::bigint AND n.agent = turn.holder
                        THEN coalesce(state.locked_at, state.last_active_at, moment) ELSE moment END,
                    moment, n.why, n.position::integer))
                FROM (
                    SELECT e.item->>'agent'::text AS agent, e.item->>'why'::text AS why, e.position
                    FROM pg_catalog.jsonb_array_elements(turn.ended) WITH ORDINALITY AS e (item, position)
                ) n);
        ELSIF NOT kept AND turn.holder IS NOT NULL AND turn.active_agent IS DISTINCT FROM turn.holder THEN
            -- Code of before these figures does not say why.
            ended := pg_catalog.jsonb_build_array(@schema.moorline_record_session(
                device, turn.holder, coalesce(state.locked_at, state.last_active_at, moment), moment,
                CASE WHEN turn.active_agent IS NULL THEN 'cleared' ELSE 'taken' END, 1));
        END IF;
        RETURN NEXT;
        number := state.last_turn_no + 1;
        numbers[own] := number;
        fence_of_turn := fences[own];
        UPDATE @schema.conversation_messages m
            SET status = turn.status, turn_no = number, claim_id = NULL, worker = NULL, values = '{}', error = NULL,
                usage = NULL
            WHERE m.device_id = device AND m.message_id = ANY (turn.messages)
                AND m.claim_id = claim AND m.status = 'running';
        still := state.unfinished AND @schema.moorline_unfinished(device) IS NOT NULL;
        -- A lock keeps what the call that set it asked for, until it ends or a call asks for something else.
        renewed := turn.active_agent IS NOT NULL AND NOT turn.lock_taken
            AND turn.call_ttl IS NULL AND turn.session_until IS NULL;
        UPDATE @schema.conversation_states s
            SET active_agent = CASE WHEN kept THEN s.active_agent::text ELSE turn.active_agent END,
                locked_at = CASE
                    WHEN kept THEN s.locked_at
                    WHEN turn.active_agent IS NULL THEN NULL
                    WHEN turn.lock_taken THEN moment
                    ELSE s.locked_at END,
                session_ttl = CASE WHEN kept THEN s.session_ttl ELSE coalesce(turn.session_ttl, s.session_ttl) END,
                call_ttl = CASE WHEN kept OR renewed THEN s.call_ttl ELSE turn.call_ttl END,
                session_until = CASE WHEN kept OR renewed THEN s.session_until ELSE turn.session_until END,
                last_active_at = moment,
                last_turn_no = number,
                heads = turn.heads,
                claim_id = NULL,
                claimed_at = NULL,
                lease_until = NULL,
                open_messages = NULL,
                unfinished = still
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        INSERT INTO @schema.conversation_turns
            (device_id, turn_no, claim_id, fence, agent, reply, interrupt, handoffs, usage, status, attempts,
             started_at, committed_at, run, changes)
            VALUES (
                device, number, claim, fence_of_turn, turn.agent, turn.reply, turn.interrupt, turn.handoffs,
                turn.usage, turn.status, turn.attempts, turn.started_at, moment, turn.run, turn.changes);
        IF turn.facts IS NOT NULL THEN
            PERFORM @schema.moorline_keep_facts(device, turn.facts, moment, true);
        END IF;
        IF turn.journal_of IS NOT NULL THEN
            -- Effects stay on record; the model answers that led to them are no longer needed.
            DELETE FROM @schema.conversation_effects e
                WHERE e.device_id = device AND e.message_id = turn.journal_of AND e.kind = 'answer';
        END IF;
        -- Namespaces that no run will enter again: they were kept for an interrupt, which is over.
        SELECT pg_catalog.array_agg(n.ns) INTO dropped
            FROM pg_catalog.jsonb_object_keys(state.heads) AS n (ns)
            WHERE NOT turn.heads ? n.ns;
        IF dropped IS NOT NULL THEN
            DELETE FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
            DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
            DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
        END IF;
    END LOOP;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT devices[c.place], c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb,
            numbers[c.place], fences[c.place]
        FROM unnest(c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (place, ns, id, parent, type, body, metadata, versions)
        WHERE numbers[c.place] IS NOT NULL
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO UPDATE
        SET parent_checkpoint_id = excluded.parent_checkpoint_id,
            type = excluded.type,
            checkpoint = excluded.checkpoint,
            metadata = excluded.metadata,
            versions = excluded.versions,
            turn_no = excluded.turn_no,
            fence = excluded.fence;
    INSERT INTO @schema.conversation_values
        (device_id, checkpoint_ns, channel, version, type, blob, fence)
        SELECT devices[v.place], v.ns, v.channel, v.version, v.type, v.blob, fences[v.place]
        FROM unnest(v_place, v_ns, v_channel, v_version, v_type, v_blob) AS v (place, ns, channel, version, type, blob)
        WHERE numbers[v.place] IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob, fence)
        SELECT devices[w.place], w.ns, w.id, w.task, w.idx, w.path, w.channel, w.type, w.blob, fences[w.place]
        FROM unnest(w_place, w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob)
            AS w (place, ns, id, task, idx, path, channel, type, blob)
        WHERE numbers[w.place] IS NOT NULL
        -- A task that was answered and asks again writes its question over the first one.
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
        SET task_path = excluded.task_path,
            channel = excluded.channel,
            type = excluded.type,
            blob = excluded.blob,
            fence = excluded.fence;

    -- Only now and then, so that it costs each turn little.
    FOR own IN 1..pg_catalog.cardinality(numbers) LOOP
        IF numbers[own] % keep_turns::bigint = 0 THEN
            PERFORM @schema.moorline_prune(
                devices[own], turns[own]::jsonb->'heads'::text, numbers[own] - keep_turns);
        END IF;
    END LOOP;
END
$$;

-- Prune: removes the checkpoints of turns up to last_turn that no value is made of any more. In each namespace it keeps
-- the one that the turn after those left or found, all later ones, and the ancestors that the delta channels of the
-- first of these are made of. The ancestors stay few even if an agent has long been silent or is missing from the app,
-- because those in between that only other channels are made of are taken out of the line. What is left of an earlier
-- turn gets the turn number 0, because the state of that turn is gone.
CREATE OR REPLACE FUNCTION @schema.moorline_prune(device text, heads jsonb, last_turn bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    ns text;
    head text;
    oldest @schema.conversation_checkpoints;
    own text;
    ids text[];
    kept text[];
    line text[];
    child text;
    ancestor text;
    doomed text[];
BEGIN
    FOR ns, head IN SELECT n.key, n.value FROM pg_catalog.jsonb_each_text(heads) AS n (key, value) LOOP
        SELECT c.* INTO oldest
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0 AND c.turn_no <= last_turn + 1
            ORDER BY c.turn_no DESC, c.checkpoint_id DESC
            LIMIT 1;
        IF NOT FOUND THEN
            SELECT c.* INTO oldest
                FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ns
                    AND (c.turn_no > last_turn OR c.checkpoint_id = head)
                ORDER BY c.turn_no
                LIMIT 1;
        END IF;
        kept := ARRAY[oldest.checkpoint_id];
        line := kept;
        -- A channel stored as deltas is recognised by its writes: LangGraph's counts name only channels of agents that
        -- are in the graph.
        FOR own IN
            SELECT DISTINCT w.channel
            FROM @schema.conversation_writes w
            WHERE w.device_id = device AND w.checkpoint_ns = ns AND oldest.versions ? w.channel
                AND NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = device AND v.checkpoint_ns = ns
                        AND v.channel = w.channel AND v.version = oldest.versions->>w.channel)
        LOOP
            ids := @schema.moorline_ancestors(device, ns, oldest.checkpoint_id, own);
            CONTINUE WHEN ids IS NULL;
            IF pg_catalog.cardinality(ids) >= pg_catalog.cardinality(line) THEN
                line := pg_catalog.array_cat(ARRAY[oldest.checkpoint_id], ids);
            END IF;
            kept := pg_catalog.array_cat(kept, ARRAY(
                SELECT i.id
                FROM pg_catalog.unnest(ids) AS i (id)
                WHERE i.id = ids[pg_catalog.cardinality(ids)] OR EXISTS (
                    SELECT 1
                    FROM @schema.conversation_writes w
                    WHERE w.device_id = device AND w.checkpoint_ns = ns AND w.checkpoint_id = i.id
                        AND w.channel = own)));
        END LOOP;
        SELECT pg_catalog.array_agg(c.checkpoint_id) INTO doomed
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no <= last_turn
                AND c.checkpoint_id <> ALL (kept);
        CONTINUE WHEN doomed IS NULL;
        child := oldest.checkpoint_id;
        FOREACH ancestor IN ARRAY line LOOP
            CONTINUE WHEN ancestor = child OR ancestor = ANY (doomed);
            UPDATE @schema.conversation_checkpoints c
                SET parent_checkpoint_id = ancestor
                WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = child
                    AND c.parent_checkpoint_id <> ancestor;
            child := ancestor;
        END LOOP;
        PERFORM @schema.moorline_discard(device, ns, doomed);
        UPDATE @schema.conversation_checkpoints c
            SET turn_no = 0
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0
                AND c.turn_no < oldest.turn_no AND c.turn_no <= last_turn;
    END LOOP;
END
$$;

-- Rewind: the conversation goes on as after this turn (0: as before its first): its heads, and who holds the session,
-- are as then. The turns that followed stay in the transcript, with rewound_at; their checkpoints are removed, and a
-- question that waits is closed. Effects and facts stay. Never waits for the row. Returns a JSON object: outcome,
-- `effects`, those of all turns after this one, and `ended`, the session that ended, as it is told. The outcome is
--   rewound   the conversation is as after this turn.
--   busy      a turn is open, or a message waits: ask again.
--   locked    another transaction has the row: ask again.
--   unknown   there is no such turn, or it has itself been rewound.
--   asked     the turn stopped to ask.
--   gone      what the turn left is no longer kept.
CREATE FUNCTION @schema.moorline_rewind(device text, last_turn bigint, keep_turns integer) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    state @schema.conversation_states;
    turn @schema.conversation_turns;
    ns text;
    base @schema.conversation_checkpoints;
    found_heads jsonb := '{}'::jsonb;
    doomed text[];
    holder text;
    ended jsonb;
    effects jsonb;
    moment timestamptz;
BEGIN
    SELECT l.* INTO state
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN CASE
            WHEN EXISTS (
                SELECT 1 FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key)
            THEN '{"outcome": "locked"}'::jsonb
            ELSE '{"outcome": "unknown"}'::jsonb END;
    END IF;
    moment := pg_catalog.clock_timestamp();
    IF state.claim_id IS NOT NULL OR EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.queued AND m.waiter_until > moment)
    THEN
        RETURN '{"outcome": "busy"}'::jsonb;
    END IF;
    SELECT t.* INTO turn FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = last_turn;
    IF last_turn <> 0 AND (turn.turn_no IS NULL OR turn.rewound_at IS NOT NULL) THEN
        RETURN '{"outcome": "unknown"}'::jsonb;
    ELSIF turn.interrupt IS NOT NULL AND last_turn < state.last_turn_no THEN
        RETURN '{"outcome": "asked"}'::jsonb;
    ELSIF last_turn <= state.last_turn_no - state.last_turn_no % keep_turns::bigint - keep_turns::bigint THEN
        RETURN '{"outcome": "gone"}'::jsonb;
    END IF;
    SELECT coalesce(
            pg_catalog.jsonb_agg(
                pg_catalog.jsonb_build_object(
                    'turn_no', e.turn_no, 'agent', e.agent, 'name', e.name, 'intent', e.intent, 'result', e.result,
                    'recorded_at', e.recorded_at)
                ORDER BY e.turn_no, e.position),
            '[]'::jsonb)
        INTO effects
        FROM @schema.conversation_effects e
        WHERE e.device_id = device AND e.turn_no > last_turn AND e.kind <> 'answer'
            AND coalesce(e.kind = 'outside' OR NOT e.result ? 'refused'::text, true);

    IF EXISTS (
        SELECT 1 FROM @schema.conversation_turns t
        WHERE t.device_id = device AND t.turn_no > last_turn AND t.rewound_at IS NULL)
    THEN
        FOR ns IN
            SELECT DISTINCT c.checkpoint_ns FROM @schema.conversation_checkpoints c WHERE c.device_id = device
        LOOP
            SELECT c.* INTO base
                FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0 AND c.turn_no <= last_turn
                ORDER BY c.turn_no DESC, c.checkpoint_id DESC
                LIMIT 1;
            IF FOUND THEN
                found_heads := found_heads || pg_catalog.jsonb_build_object(ns, base.checkpoint_id);
            ELSE
                -- It began later, or its beginning is gone.
                SELECT c.* INTO base
                    FROM @schema.conversation_checkpoints c
                    WHERE c.device_id = device AND c.checkpoint_ns = ns
                    ORDER BY c.turn_no
                    LIMIT 1;
                IF base.turn_no = 0 OR base.parent_checkpoint_id IS NOT NULL THEN
                    RETURN '{"outcome": "gone"}'::jsonb;
                END IF;
            END IF;
        END LOOP;
        IF found_heads = '{}'::jsonb AND last_turn > 0 THEN
            RETURN '{"outcome": "gone"}'::jsonb;
        END IF;

        FOR ns, doomed IN
            SELECT c.checkpoint_ns, pg_catalog.array_agg(c.checkpoint_id)
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.turn_no > last_turn
            GROUP BY c.checkpoint_ns
        LOOP
            PERFORM @schema.moorline_discard(device, ns, doomed);
        END LOOP;
        -- What later turns wrote on top of the heads.
        FOR base IN
            SELECT c.*
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND found_heads->>c.checkpoint_ns = c.checkpoint_id
        LOOP
            DELETE FROM @schema.conversation_writes w
                WHERE w.device_id = device AND w.checkpoint_ns = base.checkpoint_ns
                    AND w.checkpoint_id = base.checkpoint_id AND w.fence > base.fence;
        END LOOP;
        UPDATE @schema.conversation_turns t
            SET rewound_at = moment, status = 'done'
            WHERE t.device_id = device AND t.turn_no > last_turn AND t.rewound_at IS NULL;
        IF state.active_agent IS NULL OR state.locked_at > turn.committed_at OR last_turn = 0 THEN
            ended := @schema.moorline_end_session(state, 'cleared', moment);
            SELECT n.agent INTO holder
                FROM @schema.conversation_sessions n
                WHERE n.device_id = device AND n.locked_at <= turn.committed_at AND n.ended_at > turn.committed_at
                ORDER BY n.ended_at, n.position
                LIMIT 1;
            UPDATE @schema.conversation_states l
                SET heads = found_heads, active_agent = holder,
                    locked_at = CASE WHEN holder IS NOT NULL THEN moment END,
                    last_active_at = moment, call_ttl = NULL, session_until = NULL
                WHERE l.device_id OPERATOR(pg_catalog.=) key;
        ELSE
            UPDATE @schema.conversation_states l
                SET heads = found_heads
                WHERE l.device_id OPERATOR(pg_catalog.=) key;
        END IF;
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'outcome', 'rewound',
        'effects', effects,
        'ended', CASE WHEN ended IS NOT NULL THEN pg_catalog.jsonb_build_array(ended) END);
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

    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device AND n.ended_at < oldest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    -- A roll-up that runs would bring them back.
    PERFORM 1 FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device AND d.day < oldest_day;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;

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
    -- A roll-up that runs would bring its rows back.
    PERFORM 1 FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    DELETE FROM @schema.moorline_people p WHERE p.device_id = device;
    DELETE FROM @schema.moorline_codes c WHERE c.device_id = device;
    DELETE FROM @schema.conversation_messages m WHERE m.device_id = device;
    DELETE FROM @schema.conversation_turns t WHERE t.device_id = device;
    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device;
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device;
    DELETE FROM @schema.conversation_effects e WHERE e.device_id = device;
    DELETE FROM @schema.conversation_facts f WHERE f.device_id = device;
    DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
    DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
    DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
    BEGIN
        DELETE FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key;
        -- Deferred references are checked now rather than at the end of the transaction.
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN foreign_key_violation THEN
        NULL;
    END;
END
$$;

-- Export: what these tables have of a device that a person may want to see.
CREATE OR REPLACE FUNCTION @schema.moorline_export(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    RETURN pg_catalog.jsonb_build_object(
        'session', (
            SELECT pg_catalog.jsonb_build_object(
                'active_agent', s.active_agent, 'locked_at', s.locked_at, 'last_active_at', s.last_active_at)
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key),
        'devices', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object('device_id', s.device_id::text, 'linked_at', s.linked_at)
                    ORDER BY s.linked_at),
                '[]'::jsonb)
            FROM @schema.conversation_states s
            WHERE s.leads_to = device),
        'person_id', (SELECT p.person_id FROM @schema.moorline_people p WHERE p.device_id = device),
        'messages', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'message_id', @schema.moorline_given_id(m.address, m.message_id), 'device_id', m.address,
                        'turn_no', m.turn_no, 'text', m.text, 'resume', m.resume, 'values', m.values,
                        'status', m.status, 'received_at', m.received_at)
                    ORDER BY m.arrival),
                '[]'::jsonb)
            FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.joins IS NULL),
        'turns', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply, 'interrupt', t.interrupt,
                        'handoffs', t.handoffs, 'changes', t.changes, 'started_at', t.started_at,
                        'committed_at', t.committed_at, 'rewound_at', t.rewound_at)
                    ORDER BY t.turn_no),
                '[]'::jsonb)
            FROM @schema.conversation_turns t
            WHERE t.device_id = device),
        'sessions', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'agent', n.agent, 'locked_at', n.locked_at, 'ended_at', n.ended_at, 'why', n.why)
                    ORDER BY n.ended_at, n.position),
                '[]'::jsonb)
            FROM @schema.conversation_sessions n
            WHERE n.device_id = device),
        'effects', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'message_id', @schema.moorline_given_id(m.address, e.message_id), 'agent', e.agent, 'name', e.name, 'intent', e.intent,
                        'result', e.result, 'recorded_at', e.recorded_at)
                    ORDER BY e.turn_no, e.position),
                '[]'::jsonb)
            FROM @schema.conversation_effects e
            LEFT JOIN @schema.conversation_messages m
                ON m.device_id = device AND m.message_id = e.message_id
            WHERE e.device_id = device AND e.kind <> 'answer'),
        'facts', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'namespace', f.namespace, 'key', f.key, 'value', f.value, 'created_at', f.created_at,
                        'updated_at', f.updated_at, 'expires_at', f.expires_at)
                    ORDER BY f.namespace, f.key),
                '[]'::jsonb)
            FROM @schema.conversation_facts f
            WHERE f.device_id = device));
END
$$;

-- Known: whether anything of a device is in these tables.
CREATE OR REPLACE FUNCTION @schema.moorline_known(device text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    RETURN EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key)
        OR EXISTS (SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_turns t WHERE t.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_checkpoints c WHERE c.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_writes w WHERE w.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_sessions n WHERE n.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_facts f WHERE f.device_id = device);
END
$$;

-- Sessions: how long they live, those that have ended, and figures. The head of schema.sql explains the columns.

ALTER TABLE @schema.conversation_states
    ADD COLUMN call_ttl integer CHECK (call_ttl > 0),
    ADD COLUMN person_ttl integer CHECK (person_ttl > 0),
    ADD COLUMN session_until timestamptz;

COMMENT ON COLUMN @schema.conversation_states.call_ttl IS 'Added by Moorline: the TTL that whoever set the lock asked for';
COMMENT ON COLUMN @schema.conversation_states.person_ttl IS 'Added by Moorline: the TTL of this person''s sessions';
COMMENT ON COLUMN @schema.conversation_states.session_until IS 'Added by Moorline: when the session ends, whatever happens';

CREATE TABLE @schema.conversation_sessions (
    device_id text,
    ended_at  timestamptz,
    position  integer,
    agent     text NOT NULL,
    locked_at timestamptz NOT NULL,
    why       text NOT NULL CHECK (
        why IN ('released', 'handed_over', 'started_over', 'taken', 'cleared', 'expired')),
    PRIMARY KEY (device_id, ended_at, position)
);

CREATE INDEX conversation_sessions_ended_at ON @schema.conversation_sessions
    USING brin (ended_at) WITH (autosummarize = on);

CREATE TABLE @schema.conversation_days (
    device_id     text,
    day           date,
    agent         text,
    model         text,
    turns         bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    PRIMARY KEY (device_id, day, agent, model)
);

CREATE INDEX conversation_days_day ON @schema.conversation_days USING brin (day) WITH (autosummarize = on);

CREATE INDEX conversation_turns_committed_at ON @schema.conversation_turns
    USING brin (committed_at) WITH (autosummarize = on);

CREATE TABLE @schema.moorline_cleanups (
    name         text PRIMARY KEY,
    claim_id     uuid,
    lease_until  timestamptz,
    begun_at     timestamptz,
    rolled_up_to timestamptz
);

INSERT INTO @schema.moorline_cleanups (name) VALUES ('cleanup');

CREATE OR REPLACE VIEW @schema.expired_sessions AS
SELECT s.device_id::text AS device_id,
       s.active_agent,
       s.locked_at,
       coalesce(
           s.session_until,
           greatest(s.last_active_at, s.locked_at)
               + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
           AS expired_at
FROM @schema.conversation_states s
WHERE s.device_id IS NOT NULL
  AND s.active_agent IS NOT NULL
  AND coalesce(
      pg_catalog.clock_timestamp() >= s.session_until,
      pg_catalog.clock_timestamp() - greatest(s.last_active_at, s.locked_at)
          >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');

-- What conversation_days counts, turn by turn: each turn once, without a model, and the tokens of each model that it
-- asked. Tokens that are no number, or too large to be true, are not counted.
CREATE VIEW @schema.turn_figures AS
SELECT t.device_id, t.committed_at, coalesce(t.agent, '')::text AS agent, ''::text AS model, 1::bigint AS turns,
    0::bigint AS input_tokens, 0::bigint AS output_tokens
FROM @schema.conversation_turns t
UNION ALL
SELECT t.device_id, t.committed_at, c.agent, c.model, 0::bigint,
    CASE WHEN c.input ~ '^[0-9]{1,12}$'::text THEN c.input::bigint ELSE 0::bigint END,
    CASE WHEN c.output ~ '^[0-9]{1,12}$'::text THEN c.output::bigint ELSE 0::bigint END
FROM @schema.conversation_turns t
CROSS JOIN LATERAL pg_catalog.jsonb_each(
    CASE WHEN pg_catalog.jsonb_typeof(t.usage) = 'object'::text THEN t.usage ELSE '{}'::jsonb END
) AS m (model, counts)
CROSS JOIN LATERAL (
    SELECT m.model, coalesce(t.agent, '')::text AS agent, m.counts->>0 AS input, m.counts->>1 AS output
    WHERE pg_catalog.jsonb_typeof(m.counts) = 'array'::text
    UNION ALL
    SELECT m.model, a.key, a.value->>0, a.value->>1
    FROM pg_catalog.jsonb_each(
        CASE WHEN pg_catalog.jsonb_typeof(m.counts) = 'object'::text THEN m.counts ELSE '{}'::jsonb END
    ) AS a (key, value)
) c
WHERE t.usage <> '{}'::jsonb;

-- Answer: what a won claim is answered with.
CREATE OR REPLACE FUNCTION @schema.moorline_answer(
    device text, s @schema.conversation_states, first @schema.conversation_messages, messages jsonb, journal jsonb,
    moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    unfinished jsonb;
    run jsonb;
BEGIN
    IF s.unfinished THEN
        unfinished := @schema.moorline_unfinished(device);
    END IF;
    IF first.resume IS NOT NULL THEN
        run := (
            SELECT t.run FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = s.last_turn_no);
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'outcome', 'claimed',
        'fence', s.fence,
        'turn_no', s.last_turn_no + 1,
        'now', moment,
        'messages', messages,
        'resume', first.resume,
        'values', first.values,
        'attempts', first.attempts,
        'journal', journal,
        'unfinished', unfinished,
        'run', run,
        'usage', first.usage,
        'active_agent', CASE
            WHEN s.active_agent IS NOT NULL
                AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                    < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
            THEN s.active_agent END,
        'heads', s.heads);
END
$$;

-- Record session: a session that has ended, in the place `position` of those that ended at the same moment. Returns it
-- as it is told: agent, why, and for how many seconds it lasted.
CREATE FUNCTION @schema.moorline_record_session(
    device text, agent text, since timestamptz, ended timestamptz, why text, place integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    INSERT INTO @schema.conversation_sessions (device_id, ended_at, position, agent, locked_at, why)
        VALUES (device, ended, place, agent, least(since, ended), why)
        ON CONFLICT DO NOTHING;
    RETURN pg_catalog.jsonb_build_object(
        'agent', agent, 'why', why, 'seconds', pg_catalog.date_part('epoch', ended - least(since, ended)));
END
$$;

-- End session: records that the lock in the row ends at this moment, or that it expired before. Returns the session as
-- it is told; null if the row has no lock.
CREATE FUNCTION @schema.moorline_end_session(s @schema.conversation_states, why text, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    since timestamptz := coalesce(s.locked_at, s.last_active_at, moment);
    expired timestamptz;
BEGIN
    IF s.active_agent IS NULL THEN
        RETURN NULL;
    ELSIF s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        RETURN @schema.moorline_record_session(s.device_id::text, s.active_agent::text, since, moment, why, 0);
    END IF;
    expired := coalesce(s.session_until, greatest(s.last_active_at, s.locked_at)
        + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');
    RETURN @schema.moorline_record_session(
        s.device_id::text, s.active_agent::text, since, coalesce(expired, moment), 'expired', 0);
END
$$;

-- Commit: commits a batch of turns, each at one place of the arrays. Outcomes: committed, lock_kept (committed, except
-- that somebody else set or cleared the lock meanwhile), stale (the device has another claim or none, and nothing was
-- written) or locked. Idempotent: a turn that was committed before, and whose acknowledgement was lost, answers
-- committed again. `ended` are the sessions that ended with the turn, as they are told; null if none did. Checkpoints,
-- values and writes come as one array for each column; the first array of each holds the place of the turn. Rows with
-- the same keys may have been left by the turn before, which stopped to ask.
CREATE FUNCTION @schema.moorline_commit_2(
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
                journal_of text, holder text, run jsonb);
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
             started_at, committed_at, run)
            VALUES (
                device, number, claim, fence_of_turn, turn.agent, turn.reply, turn.interrupt, turn.handoffs,
                turn.usage, turn.status, turn.attempts, turn.started_at, moment, turn.run);
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

-- For code of before moorline_commit_2. The first version whose previous code calls that drops it.
CREATE OR REPLACE FUNCTION @schema.moorline_commit(
    devices text[], claims uuid[], fences bigint[], turns text[], keep_turns integer,
    c_place integer[], c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[],
    c_versions text[],
    v_place integer[], v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_place integer[], w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[],
    w_type text[], w_blob bytea[]
) RETURNS TABLE (place integer, outcome text)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.place, c.outcome
        FROM @schema.moorline_commit_2(
            devices, claims, fences, turns, keep_turns, c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata,
            c_versions, v_place, v_ns, v_channel, v_version, v_type, v_blob, w_place, w_ns, w_id, w_task, w_idx,
            w_path, w_channel, w_type, w_blob) c;
END
$$;

-- Session: the live lock of the conversation that the device leads to. No row: there is none.
CREATE FUNCTION @schema.moorline_session(device text) RETURNS TABLE (
    active_agent text, locked_at timestamptz, expires_at timestamptz
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(@schema.moorline_conversation(device));
    moment timestamptz := pg_catalog.statement_timestamp();
BEGIN
    RETURN QUERY
        SELECT s.active_agent::text, coalesce(s.locked_at, s.last_active_at),
            coalesce(s.session_until, greatest(s.last_active_at, s.locked_at)
                + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.active_agent IS NOT NULL
            AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');
END
$$;

-- Set lock: takes or renews the lock of the conversation that the device leads to. locked_at, and what a call asked for
-- before, stay while the same agent's lock is live. ttl is what this call asks for, until the moment at which the lock
-- ends instead, agent_ttl the agent's own, default_ttl that of a device that has none yet. The moment comes after the
-- row is locked, so that it is later than the claim of an open turn. Returns the sessions that ended with it, as they
-- are told; null, and nothing is set, if `until` has passed.
CREATE FUNCTION @schema.moorline_set_lock_2(
    device text, agent text, ttl integer, until timestamptz, agent_ttl integer, default_ttl integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_conversation(device);
    s @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    ended jsonb := '[]'::jsonb;
    since timestamptz;
BEGIN
    IF until <= moment THEN
        RETURN NULL;
    END IF;
    INSERT INTO @schema.conversation_states AS n (device_id, session_ttl)
        VALUES (key, coalesce(ttl, agent_ttl, default_ttl))
        ON CONFLICT (device_id) DO NOTHING;
    SELECT l.* INTO STRICT s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    IF s.active_agent::text = agent
        AND s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        since := s.locked_at;
        IF ttl IS NULL AND until IS NULL THEN
            s.session_ttl := coalesce(agent_ttl, s.session_ttl);
        ELSE
            s.session_ttl := coalesce(ttl, agent_ttl, s.session_ttl);
            s.call_ttl := ttl;
            s.session_until := until;
        END IF;
    ELSE
        IF s.active_agent IS NOT NULL THEN
            ended := pg_catalog.jsonb_build_array(@schema.moorline_end_session(s, 'taken', moment));
        END IF;
        s.session_ttl := coalesce(ttl, agent_ttl, s.session_ttl);
        s.call_ttl := ttl;
        s.session_until := until;
    END IF;
    UPDATE @schema.conversation_states l
        SET active_agent = agent,
            session_ttl = s.session_ttl,
            call_ttl = s.call_ttl,
            session_until = s.session_until,
            locked_at = coalesce(since, moment),
            last_active_at = moment
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN ended;
END
$$;

-- For code of before moorline_set_lock_2. The first version whose previous code calls that drops it.
CREATE OR REPLACE FUNCTION @schema.moorline_set_lock(
    device text, agent text, ttl integer, default_ttl integer
) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM @schema.moorline_set_lock_2(device, agent, ttl, NULL::timestamptz, NULL::integer, default_ttl);
END
$$;

-- Clear lock: drops the lock of the conversation that the device leads to, and nothing else. Returns the session that
-- ended with it, as it is told; null if there was no lock.
CREATE FUNCTION @schema.moorline_clear_lock_2(device text, why text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(@schema.moorline_conversation(device));
    s @schema.conversation_states;
    moment timestamptz;
BEGIN
    SELECT l.* INTO s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.active_agent IS NOT NULL
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE @schema.conversation_states l
        SET active_agent = NULL, locked_at = NULL, call_ttl = NULL, session_until = NULL
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    moment := pg_catalog.clock_timestamp();
    RETURN @schema.moorline_end_session(s, why, moment);
END
$$;

-- For code of before moorline_clear_lock_2. The first version whose previous code calls that drops it.
CREATE OR REPLACE FUNCTION @schema.moorline_clear_lock(device text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN coalesce(@schema.moorline_clear_lock_2(device, 'cleared')->>'why'::text <> 'expired', false);
END
$$;

-- Set person TTL: how long the sessions of the conversation that the device leads to live from now on, the one that it
-- has now included; null: as without. A lock that has expired stays so. Returns the session that ended with it, as it
-- is told.
CREATE FUNCTION @schema.moorline_set_person_ttl(device text, ttl integer, default_ttl integer) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_conversation(device);
    s @schema.conversation_states;
    ended jsonb;
    moment timestamptz;
BEGIN
    INSERT INTO @schema.conversation_states AS n (device_id, session_ttl)
        VALUES (key, default_ttl)
        ON CONFLICT (device_id) DO NOTHING;
    SELECT l.* INTO STRICT s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    IF s.claim_id IS NULL AND s.active_agent IS NOT NULL
        AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        ended := @schema.moorline_end_session(s, 'expired', moment);
        s.active_agent := NULL;
        s.locked_at := NULL;
        s.call_ttl := NULL;
        s.session_until := NULL;
    END IF;
    UPDATE @schema.conversation_states l
        SET person_ttl = ttl,
            active_agent = s.active_agent,
            locked_at = s.locked_at,
            call_ttl = s.call_ttl,
            session_until = s.session_until
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN ended;
END
$$;

-- Expire locks: drops up to `most` expired locks, except those whose rows are locked and those of devices whose turn is
-- open: that turn will renew the lock. Returns the sessions, as they are told.
CREATE FUNCTION @schema.moorline_expire_locks(most integer) RETURNS SETOF jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE;
    held @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    cleared integer := 0;
BEGIN
    FOR key IN
        SELECT s.device_id
        FROM @schema.conversation_states s
        WHERE s.device_id IS NOT NULL AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
            AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    LOOP
        SELECT s.* INTO held
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
                AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                    >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE @schema.conversation_states s
            SET active_agent = NULL, locked_at = NULL, call_ttl = NULL, session_until = NULL
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        RETURN NEXT @schema.moorline_end_session(held, 'expired', moment);
        cleared := cleared + 1;
        EXIT WHEN cleared >= most;
    END LOOP;
END
$$;

-- For code of before moorline_expire_locks. The first version whose previous code calls that drops it.
CREATE OR REPLACE FUNCTION @schema.moorline_clear_expired_locks(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN (SELECT pg_catalog.count(*) FROM @schema.moorline_expire_locks(most) e (session));
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
        UPDATE @schema.conversation_states l
            SET heads = '{}'
            WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.heads <> '{}';
    ELSIF last_turn IS NOT NULL THEN
        PERFORM @schema.moorline_prune(device, s.heads, last_turn);
    END IF;
    RETURN removed - @schema.moorline_stored(device);
END
$$;

-- Claim cleanup: makes this process the one that cleans up, for lease_seconds; called again it renews the lease. False:
-- another process is at it, or the last cleanup began less than pause_seconds ago.
CREATE FUNCTION @schema.moorline_claim_cleanup(
    claim uuid, lease_seconds double precision, pause_seconds double precision
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    own @schema.moorline_cleanups;
    moment timestamptz;
    lease timestamptz;
BEGIN
    SELECT c.* INTO own FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    lease := moment + lease_seconds * interval '1 second';
    IF own.name IS NULL THEN
        RETURN false;
    ELSIF own.claim_id = claim THEN
        UPDATE @schema.moorline_cleanups c SET lease_until = lease WHERE c.name = 'cleanup'::text;
        RETURN true;
    ELSIF own.lease_until > moment OR moment - own.begun_at < pause_seconds * interval '1 second' THEN
        RETURN false;
    END IF;
    UPDATE @schema.moorline_cleanups c
        SET claim_id = claim, lease_until = lease, begun_at = moment
        WHERE c.name = 'cleanup'::text;
    RETURN true;
END
$$;

-- End cleanup: another process may clean up at once.
CREATE FUNCTION @schema.moorline_end_cleanup(claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    UPDATE @schema.moorline_cleanups c
        SET claim_id = NULL, lease_until = NULL
        WHERE c.name = 'cleanup'::text AND c.claim_id = claim;
END
$$;

-- Roll up: adds the turns of the next hour to conversation_days. Returns false, and does nothing, if that hour has not
-- been over for ten minutes: until then the commit of one of its turns may still be on its way. However many call it,
-- each hour is added once, because the row with the moment is locked.
CREATE FUNCTION @schema.moorline_roll_up() RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    since timestamptz;
    next timestamptz;
    moment timestamptz;
    hour interval := interval '1 hour';
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
    UPDATE @schema.moorline_cleanups c SET rolled_up_to = next WHERE c.name = 'cleanup'::text;
    RETURN true;
END
$$;

-- Recount: makes the rows of a device in conversation_days anew from its turns, after rows of other times were stored.
CREATE FUNCTION @schema.moorline_recount(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    until timestamptz;
BEGIN
    SELECT c.rolled_up_to INTO until FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device;
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
                        'handoffs', t.handoffs, 'started_at', t.started_at, 'committed_at', t.committed_at)
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
            WHERE e.device_id = device AND e.kind <> 'answer'));
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
        OR EXISTS (SELECT 1 FROM @schema.conversation_sessions n WHERE n.device_id = device);
END
$$;

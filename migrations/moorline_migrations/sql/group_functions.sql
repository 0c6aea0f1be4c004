-- Turns in groups: what begins and what commits the turns of many devices in one statement each.
--
-- A group takes the rows of its devices in the order of their IDs and skips a row that somebody else has locked: no two
-- groups wait for each other, and one device's lock holds up no other. Each member has an outcome of its own; "locked"
-- means that nothing was done for it and that it may ask again.
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began: what is read here
-- after a device's row is locked is the state that its last turn left.

-- The messages of a device's open turn. Code that does not know open_messages leaves them to be searched for.
CREATE FUNCTION @schema.moorline_running_2(
    device text, state @schema.conversation_states
) RETURNS SETOF @schema.conversation_messages
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY
        SELECT m.* FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = ANY (state.open_messages)
            AND m.status = 'running' AND m.claim_id = state.claim_id;
    IF NOT FOUND THEN
        RETURN QUERY
            SELECT m.* FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.status = 'running' AND state.claim_id IS NOT NULL;
    END IF;
END
$$;

-- Claim: as moorline_claim_1, with the same answers, but that it does not wait for a device's row: its outcome is then
-- "locked". A message that finds nobody before it begins to run at once, without a place in the queue.
CREATE FUNCTION @schema.moorline_claim_2(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_context jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    first @schema.conversation_messages;
    unawaited boolean;
    busy boolean;
    chosen text[];
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id = key) THEN
            RETURN '{"outcome": "locked"}';
        ELSIF message IS NULL THEN
            RETURN '{"outcome": "idle"}';
        END IF;
        INSERT INTO @schema.conversation_states AS s (device_id, session_ttl) VALUES (key, default_ttl)
            ON CONFLICT (device_id) DO NOTHING
            RETURNING s.* INTO state;
        IF NOT FOUND THEN
            RETURN '{"outcome": "locked"}';
        END IF;
    END IF;
    moment := clock_timestamp();

    SELECT m.* INTO own FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
    IF own.status IN ('done', 'interrupted') THEN
        RETURN (
            SELECT jsonb_build_object(
                'outcome', 'replayed', 'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply,
                'handoffs', t.handoffs, 'usage', t.usage, 'interrupt', t.interrupt,
                'other_text', own.text <> message_text)
            FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = own.turn_no);
    ELSIF own.status = 'dead' THEN
        RETURN jsonb_build_object('outcome', 'dead', 'error', own.error);
    END IF;

    -- Nobody waits for this message yet: whoever delivered it before, if anybody, has gone.
    unawaited := own.message_id IS NULL OR own.status = 'waiting' AND coalesce(own.waiter_until <= moment, true);
    busy := coalesce(state.lease_until > moment, false);
    IF state.claim_id = claim THEN
        -- The answer to this very claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = moment + lease_seconds * interval '1 second' WHERE s.device_id = key;
        RETURN @schema.moorline_claimed_2(device, state, moment);
    ELSIF busy AND unawaited AND on_busy = 'reject' THEN
        RETURN jsonb_build_object('outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
        IF state.claim_id IS NULL AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued)
        THEN
            INSERT INTO @schema.conversation_messages AS m
                (device_id, message_id, arrival, text, resume, context, status, attempts, claim_id, merge)
                VALUES (device, message, state.arrivals + 1, message_text, message_resume, message_context, 'running',
                        1, claim, on_busy = 'merge')
                RETURNING m.* INTO first;
            state := @schema.moorline_take_2(
                device, claim, ARRAY[message], asking_worker, state.arrivals + 1, lease_seconds, moment);
            RETURN @schema.moorline_answer_2(
                state, first, jsonb_build_array(jsonb_build_object('id', message, 'text', message_text)), '[]', moment);
        END IF;
        state.arrivals := state.arrivals + 1;
        INSERT INTO @schema.conversation_messages
            (device_id, message_id, arrival, text, resume, context, status, waiter_until, worker, merge)
            VALUES (device, message, state.arrivals, message_text, message_resume, message_context, 'waiting',
                    moment + waiter_seconds * interval '1 second', asking_worker, on_busy = 'merge');
    ELSIF own.status = 'waiting' THEN
        UPDATE @schema.conversation_messages m
            SET waiter_until = moment + waiter_seconds * interval '1 second', worker = asking_worker
            WHERE m.device_id = device AND m.message_id = message;
    END IF;

    IF busy THEN
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN '{"outcome": "waiting"}';
    END IF;

    -- Nobody holds the device. A turn whose process died comes first; then messages in order of arrival, but none
    -- whose waiter has gone: nobody would take its reply. A process that had many turns in a row lets others go first.
    LOOP
        SELECT m.* INTO first FROM @schema.moorline_running_2(device, state) m ORDER BY m.arrival LIMIT 1;
        IF NOT FOUND THEN
            SELECT m.* INTO first
                FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.queued
                    AND CASE WHEN message IS NULL THEN m.waiter_until <= moment ELSE m.waiter_until > moment END
                ORDER BY state.worker_turns >= 8 AND m.worker IS NOT DISTINCT FROM state.last_worker, m.arrival
                LIMIT 1;
        END IF;
        IF NOT FOUND THEN
            RETURN '{"outcome": "idle"}';
        END IF;
        EXIT WHEN first.attempts < max_attempts;
        UPDATE @schema.conversation_messages m
            SET status = 'dead', waiter_until = NULL,
                error = coalesce(m.error, 'the process that ran it died each time')
            WHERE m.device_id = device
                AND (m.message_id = first.message_id
                    OR first.status = 'running'
                        AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r));
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, open_messages = NULL, lease_until = NULL, arrivals = state.arrivals
            WHERE s.device_id = key
            RETURNING s.* INTO state;
        IF EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = message AND m.status = 'dead')
        THEN
            RETURN jsonb_build_object('outcome', 'dead', 'error', (
                SELECT m.error FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message));
        END IF;
    END LOOP;
    IF first.status = 'waiting' AND first.message_id <> message
        AND NOT coalesce(first.claim_id = own.claim_id, false)
        AND NOT (first.merge AND @schema.moorline_merged_2(first, message, moment))
    THEN
        IF unawaited AND on_busy = 'reject' THEN
            DELETE FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message AND own.message_id IS NULL;
            UPDATE @schema.conversation_messages m SET waiter_until = NULL
                WHERE m.device_id = device AND m.message_id = message;
            RETURN jsonb_build_object('outcome', 'busy', 'retry_after', 0);
        END IF;
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN '{"outcome": "waiting"}';
    END IF;

    IF first.status = 'running' THEN
        chosen := ARRAY(SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    ELSE
        chosen := ARRAY(
            SELECT m.message_id FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.queued
                AND (m.message_id = first.message_id
                    OR m.claim_id = first.claim_id
                    OR first.merge AND @schema.moorline_merged_2(first, m.message_id, moment)));
    END IF;
    UPDATE @schema.conversation_messages m
        SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = ANY (chosen);
    state := @schema.moorline_take_2(device, claim, chosen, asking_worker, state.arrivals, lease_seconds, moment);
    RETURN @schema.moorline_claimed_2(device, state, moment);
END
$$;

-- Writes a claim into the row of its device.
CREATE FUNCTION @schema.moorline_take_2(
    device text, claim uuid, messages text[], asking_worker text, last_arrival bigint, lease_seconds double precision,
    moment timestamptz
) RETURNS @schema.conversation_states
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            open_messages = messages,
            fence = nextval('@schema.conversation_fences'),
            lease_until = moment + lease_seconds * interval '1 second',
            arrivals = last_arrival,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id = key
        RETURNING s.* INTO STRICT state;
    RETURN state;
END
$$;

-- As moorline_merged_1: whether a waiting message is answered together with the first one.
CREATE FUNCTION @schema.moorline_merged_2(
    first @schema.conversation_messages, message text, moment timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT first.resume IS NULL AND first.claim_id IS NULL AND coalesce(
        bool_and(b.merge AND b.resume IS NULL AND b.claim_id IS NULL AND b.context = first.context), false)
    FROM @schema.conversation_messages m
    JOIN @schema.conversation_messages b
        ON b.device_id = m.device_id AND b.queued AND b.arrival BETWEEN first.arrival AND m.arrival
            AND b.waiter_until > moment
    WHERE m.device_id = first.device_id AND m.message_id = message AND m.queued AND m.waiter_until > moment
$$;

-- What a claimed turn starts from: its messages, and its journal if it was run before.
CREATE FUNCTION @schema.moorline_claimed_2(
    device text, state @schema.conversation_states, moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    first @schema.conversation_messages;
    messages jsonb;
    journal jsonb := '[]';
BEGIN
    SELECT jsonb_agg(jsonb_build_object('id', m.message_id, 'text', m.text) ORDER BY m.arrival) INTO STRICT messages
        FROM @schema.moorline_running_2(device, state) m;
    SELECT m.* INTO STRICT first
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = messages->0->>'id';
    IF first.attempts > 1 OR first.error IS NOT NULL THEN
        SELECT coalesce(
                jsonb_agg(
                    jsonb_build_object('kind', e.kind, 'name', e.name, 'intent', e.intent, 'result', e.result)
                    ORDER BY e.position),
                '[]')
            INTO STRICT journal
            FROM @schema.conversation_effects e
            WHERE e.device_id = device AND e.message_id = first.message_id;
    END IF;
    RETURN @schema.moorline_answer_2(state, first, messages, journal, moment);
END
$$;

-- The answer to a claim that was won.
CREATE FUNCTION @schema.moorline_answer_2(
    state @schema.conversation_states, first @schema.conversation_messages, messages jsonb, journal jsonb,
    moment timestamptz
) RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object(
        'outcome', 'claimed',
        'fence', state.fence,
        'turn_no', state.last_turn_no + 1,
        'now', moment,
        'messages', messages,
        'resume', first.resume,
        'context', first.context,
        'attempts', first.attempts,
        'journal', journal,
        'active_agent', CASE
            WHEN greatest(state.last_active_at, state.locked_at) + state.session_ttl * interval '1 second' > moment
            THEN state.active_agent END,
        'heads', state.heads)
$$;

-- What the values of delta channels at a checkpoint are made of, as moorline_history_1 says; each step up goes by the
-- key of the parent, however few the stored checkpoints are: OFFSET 0 keeps the planner from reading all of them anew.
CREATE FUNCTION @schema.moorline_history_2(device text, ns text, id text, channels text[]) RETURNS TABLE (
    depth integer, checkpoint_id text, task_id text, idx integer, task_path text, channel text, version text,
    type text, blob bytea
)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE walk AS (
        SELECT 0 AS depth, t.checkpoint_id, t.parent_checkpoint_id, t.versions, '{}'::text[] AS sought,
            $4 AS missing
        FROM @schema.conversation_checkpoints t
        WHERE t.device_id = $1 AND t.checkpoint_ns = $2 AND t.checkpoint_id = $3
        UNION ALL
        SELECT k.depth + 1, a.checkpoint_id, a.parent_checkpoint_id, a.versions, k.missing,
            ARRAY(
                SELECT m.channel
                FROM unnest(k.missing) AS m (channel)
                WHERE NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = $1 AND v.checkpoint_ns = $2
                        AND v.channel = m.channel AND v.version = a.versions ->> m.channel
                )
            )
        FROM walk k
        CROSS JOIN LATERAL (
            SELECT a.checkpoint_id, a.parent_checkpoint_id, a.versions
            FROM @schema.conversation_checkpoints a
            WHERE a.device_id = $1 AND a.checkpoint_ns = $2 AND a.checkpoint_id = k.parent_checkpoint_id
            OFFSET 0
        ) a
        WHERE k.missing <> '{}'
    )
    SELECT k.depth, k.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, NULL::text AS version, w.type, w.blob
    FROM walk k
    CROSS JOIN LATERAL (
        SELECT w.task_id, w.idx, w.task_path, w.channel, w.type, w.blob
        FROM @schema.conversation_writes w
        WHERE w.device_id = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = k.checkpoint_id
            AND w.channel = ANY (k.sought)
        OFFSET 0
    ) w
    UNION ALL
    SELECT k.depth, k.checkpoint_id, NULL, NULL, NULL, v.channel, v.version, v.type, v.blob
    FROM walk k
    CROSS JOIN LATERAL unnest(k.sought) AS f (channel)
    JOIN @schema.conversation_values v
        ON v.device_id = $1 AND v.checkpoint_ns = $2
            AND v.channel = f.channel AND v.version = k.versions ->> f.channel
$$;

-- Begin: the claims of a group, one place each in the arrays, and with each what its run will read first: the head of
-- the manager and that of the agent that holds the session, each with what its delta channels are made of. A row a
-- head; without one a row that has only the claim's answer. A head that the caller says it knows (a JSON object of
-- heads by namespace) is left out.
CREATE FUNCTION @schema.moorline_begin_2(
    devices text[], messages text[], claims uuid[], texts text[], resumes text[], contexts text[], on_busy text[],
    known text[], asking_worker text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS TABLE (
    place integer, answer jsonb,
    device_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[],
    delta_channels text[], history_depths integer[], history_ids text[], history_tasks text[], history_idxs integer[],
    history_paths text[], history_channels text[], history_versions text[], history_types text[],
    history_blobs bytea[]
)
LANGUAGE plpgsql VOLATILE
-- All of it goes by keys. Planning it anew, five times on each connection, would take longer than the rest.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    claimed jsonb;
    wanted jsonb;
BEGIN
    FOR own IN SELECT n.place FROM unnest(devices) WITH ORDINALITY AS n (device, place) ORDER BY n.device, n.place LOOP
        claimed := @schema.moorline_claim_2(
            devices[own], messages[own], claims[own], asking_worker, texts[own], resumes[own]::jsonb,
            contexts[own]::jsonb, on_busy[own], default_ttl, lease_seconds, waiter_seconds, max_attempts);
        wanted := (
            SELECT jsonb_object_agg(n.key, n.value)
            FROM jsonb_each_text(claimed->'heads') AS n
            WHERE n.key IN ('', claimed->>'active_agent') AND n.value IS DISTINCT FROM known[own]::jsonb->>n.key);
        IF wanted IS NULL THEN
            place := own;
            answer := claimed;
            RETURN NEXT;
            CONTINUE;
        END IF;
        RETURN QUERY
            SELECT own, claimed, c.*, d.channels, h.*
            FROM jsonb_each_text(wanted) AS n (ns, head)
            LEFT JOIN LATERAL @schema.moorline_checkpoint_1(devices[own], n.ns, n.head) c ON true
            LEFT JOIN LATERAL (
                SELECT array_agg(k.channel) AS channels
                FROM jsonb_object_keys(c.metadata->'counters_since_delta_snapshot') AS k (channel)
            ) d ON true
            LEFT JOIN LATERAL (
                SELECT array_agg(w.depth), array_agg(w.checkpoint_id), array_agg(w.task_id), array_agg(w.idx),
                    array_agg(w.task_path), array_agg(w.channel), array_agg(w.version), array_agg(w.type),
                    array_agg(w.blob)
                FROM @schema.moorline_history_2(devices[own], n.ns, n.head, d.channels) w
            ) h ON d.channels IS NOT NULL;
    END LOOP;
END
$$;

-- Commit: the outcomes of a group of turns, one place each in the arrays: committed, or stale (its fence no longer
-- stands, and nothing was written), or locked. Idempotent: a turn that was committed and is committed again (its
-- acknowledgement was lost) is committed again.
-- Checkpoints, values and writes come as one array a column, the first of them the place of their turn.
CREATE FUNCTION @schema.moorline_commit_2(
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
DECLARE
    own integer;
    key @schema.conversation_states.device_id%TYPE;
    state @schema.conversation_states;
    turn jsonb;
    ids text[];
    numbers bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(devices)]);
    moment timestamptz;
BEGIN
    FOR own IN SELECT n.place FROM unnest(devices) WITH ORDINALITY AS n (device, place) ORDER BY n.device, n.place LOOP
        key := devices[own];
        turn := turns[own]::jsonb;
        place := own;
        SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            outcome := CASE
                WHEN EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id = key) THEN 'locked'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        ELSIF state.claim_id IS DISTINCT FROM claims[own] OR state.fence <> fences[own] THEN
            outcome := CASE
                WHEN EXISTS (
                    SELECT 1 FROM @schema.conversation_turns t
                    WHERE t.device_id = devices[own] AND t.turn_no = (turn->>'turn_no')::bigint
                        AND t.fence = fences[own])
                THEN 'committed'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        END IF;
        outcome := 'committed';
        RETURN NEXT;
        moment := clock_timestamp();
        numbers[own] := state.last_turn_no + 1;
        ids := ARRAY(SELECT jsonb_array_elements_text(turn->'messages'));
        UPDATE @schema.conversation_messages m
            SET status = turn->>'status', turn_no = numbers[own], claim_id = NULL, worker = NULL, context = '{}',
                error = NULL
            WHERE m.device_id = devices[own] AND m.message_id = ANY (ids)
                AND m.claim_id = claims[own] AND m.status = 'running';
        UPDATE @schema.conversation_states s
            SET active_agent = turn->>'active_agent',
                locked_at = CASE
                    WHEN turn->>'active_agent' IS NULL THEN NULL
                    WHEN (turn->>'lock_taken')::boolean THEN moment
                    ELSE s.locked_at END,
                session_ttl = coalesce((turn->>'session_ttl')::integer, s.session_ttl),
                last_active_at = moment,
                last_turn_no = numbers[own],
                heads = turn->'heads',
                claim_id = NULL,
                open_messages = NULL,
                lease_until = NULL
            WHERE s.device_id = key;
        INSERT INTO @schema.conversation_turns
            (device_id, turn_no, fence, agent, reply, interrupt, handoffs, usage, status, attempts, started_at,
             committed_at)
            VALUES (
                devices[own], numbers[own], fences[own], turn->>'agent', turn->>'reply',
                nullif(turn->'interrupt', 'null'), ARRAY(SELECT jsonb_array_elements_text(turn->'handoffs')),
                turn->'usage', turn->>'status', (turn->>'attempts')::integer, (turn->>'started_at')::timestamptz,
                moment);
        IF turn ? 'journal_of' THEN
            -- Effects stay on record; the answers that led to them have served.
            DELETE FROM @schema.conversation_effects e
                WHERE e.device_id = devices[own] AND e.message_id = turn->>'journal_of' AND e.kind = 'answer';
        END IF;
        PERFORM @schema.moorline_drop_2(devices[own], ARRAY(
            SELECT n.key FROM jsonb_object_keys(state.heads) AS n (key) WHERE NOT turn->'heads' ? n.key));
    END LOOP;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT devices[c.place], c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb,
            numbers[c.place], fences[c.place]
        FROM unnest(c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (place, ns, id, parent, type, body, metadata, versions)
        WHERE numbers[c.place] IS NOT NULL;
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
        WHERE numbers[w.place] IS NOT NULL;

    -- Now and then, so that a turn's share of it is small.
    PERFORM @schema.moorline_prune_2(devices[n.place], turns[n.place]::jsonb->'heads', n.number - keep_turns)
        FROM unnest(numbers) WITH ORDINALITY AS n (number, place)
        WHERE n.number % keep_turns = 0;
END
$$;

-- Drop: removes namespaces that nothing will enter again: an interrupt kept them, and it is over.
CREATE FUNCTION @schema.moorline_drop_2(device text, dropped text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF dropped <> '{}' THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
    END IF;
END
$$;

-- Prune: removes the checkpoints of turns up to last_turn that nothing is made of any more. What stays of those: the
-- heads; in each namespace the ancestors that the delta channels of its oldest later checkpoint are made of.
CREATE FUNCTION @schema.moorline_prune_2(device text, heads jsonb, last_turn bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    doomed text[];
    head record;
BEGIN
    FOR head IN SELECT n.key AS ns, n.value AS id FROM jsonb_each_text(heads) AS n LOOP
        WITH RECURSIVE oldest AS (
            SELECT c.checkpoint_id, c.parent_checkpoint_id, c.metadata
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns
                AND (c.turn_no > last_turn OR c.checkpoint_id = head.id)
            ORDER BY c.turn_no
            LIMIT 1
        ), walk AS (
            SELECT o.checkpoint_id, o.parent_checkpoint_id,
                ARRAY(
                    SELECT k.channel
                    FROM jsonb_object_keys(o.metadata->'counters_since_delta_snapshot') AS k (channel)
                ) AS missing
            FROM oldest o
            UNION ALL
            SELECT a.checkpoint_id, a.parent_checkpoint_id,
                ARRAY(
                    SELECT m.channel
                    FROM unnest(w.missing) AS m (channel)
                    WHERE NOT EXISTS (
                        SELECT 1
                        FROM @schema.conversation_values v
                        WHERE v.device_id = device AND v.checkpoint_ns = head.ns
                            AND v.channel = m.channel AND v.version = a.versions ->> m.channel
                    )
                )
            FROM walk w
            JOIN @schema.conversation_checkpoints a
                ON a.device_id = device AND a.checkpoint_ns = head.ns AND a.checkpoint_id = w.parent_checkpoint_id
            WHERE w.missing <> '{}'
        )
        SELECT array_agg(c.checkpoint_id) INTO doomed
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND c.turn_no <= last_turn
                AND c.checkpoint_id NOT IN (SELECT w.checkpoint_id FROM walk w);
        CONTINUE WHEN doomed IS NULL;
        WITH gone AS (
            DELETE FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND c.checkpoint_id = ANY (doomed)
            RETURNING c.versions
        ), unused AS (
            SELECT n.key AS channel, n.value AS version
            FROM gone g
            CROSS JOIN LATERAL jsonb_each_text(g.versions) AS n
            EXCEPT
            SELECT n.key, n.value
            FROM @schema.conversation_checkpoints c
            CROSS JOIN LATERAL jsonb_each_text(c.versions) AS n
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND NOT c.checkpoint_id = ANY (doomed)
        ), gone_writes AS (
            DELETE FROM @schema.conversation_writes w
            WHERE w.device_id = device AND w.checkpoint_ns = head.ns AND w.checkpoint_id = ANY (doomed)
        )
        DELETE FROM @schema.conversation_values v
            USING unused u
            WHERE v.device_id = device AND v.checkpoint_ns = head.ns AND v.channel = u.channel
                AND v.version = u.version;
    END LOOP;
END
$$;

-- Release: as moorline_release_1.
CREATE FUNCTION @schema.moorline_release_2(
    device text, claim uuid, turn_fence bigint, told text, give_back boolean, failure text, max_attempts integer
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    SELECT s.* INTO state
        FROM @schema.conversation_states s
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_messages m
        SET attempts = m.attempts - give_back::integer,
            status = CASE WHEN m.attempts - give_back::integer >= max_attempts THEN 'dead' ELSE 'waiting' END,
            waiter_until = CASE WHEN m.message_id IS DISTINCT FROM told THEN clock_timestamp() END,
            error = failure
        WHERE m.device_id = device
            AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    UPDATE @schema.conversation_states s
        SET claim_id = NULL, open_messages = NULL, lease_until = NULL WHERE s.device_id = key;
    RETURN true;
END
$$;

-- Abandon: as moorline_abandon_1.
CREATE FUNCTION @schema.moorline_abandon_2(device text, claim uuid, give_back boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.lease_until IS NOT NULL
        RETURNING s.* INTO state;
    IF FOUND AND give_back THEN
        UPDATE @schema.conversation_messages m
            SET attempts = m.attempts - 1
            WHERE m.device_id = device
                AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    END IF;
END
$$;

-- Withdraw: as moorline_withdraw_1.
CREATE FUNCTION @schema.moorline_withdraw_2(device text, message text, claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key AND s.claim_id = claim FOR UPDATE;
    IF FOUND AND EXISTS (
        SELECT 1 FROM @schema.moorline_running_2(device, state) r WHERE r.message_id = message)
    THEN
        UPDATE @schema.conversation_messages m
            SET status = 'waiting', attempts = m.attempts - 1, waiter_until = clock_timestamp()
            WHERE m.device_id = device
                AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, open_messages = NULL, lease_until = NULL WHERE s.device_id = key;
    ELSE
        PERFORM @schema.moorline_abandon_2(device, claim, true);
    END IF;
    UPDATE @schema.conversation_messages m SET waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = message AND m.status = 'waiting';
END
$$;

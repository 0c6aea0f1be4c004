-- Turns: what claims a device for one message and what commits the turn's outcome.
--
-- A function's name carries its version, because two versions of the code may run on one schema.
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began:
-- what is read here after the device's row is locked is the state that the last turn left.

-- Claim: claims the device for its next turn, or says why not. Idempotent in claim: asked again with the same claim
-- it gives the same turn again. A message that has to wait keeps a place in the queue for waiter_seconds. Without a
-- message it only looks for what a crashed process left behind: its turn, or a message that waited in it.
--
-- The answer's "outcome" is
--   claimed   the turn to run now: its fence, number, messages, lock and heads, and its journal if it was run before.
--             Its messages are the caller's own (with those merged into it), or those of a turn of this device that
--             a crashed process left behind and that has to be finished first.
--   replayed  the message has been answered: the stored reply.
--   waiting   the message is in the queue, or this very message is already being answered: ask again.
--   busy      another turn runs and the caller would not wait; nothing was stored.
--   dead      the message was set aside after max_attempts.
--   idle      nothing was left behind.
CREATE FUNCTION @schema.moorline_claim_1(
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
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
    IF NOT FOUND THEN
        IF message IS NULL THEN
            RETURN jsonb_build_object('outcome', 'idle');
        END IF;
        INSERT INTO @schema.conversation_states (device_id, session_ttl) VALUES (key, default_ttl)
            ON CONFLICT (device_id) DO NOTHING;
        SELECT s.* INTO STRICT state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
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
        RETURN @schema.moorline_claimed_1(state, moment);
    ELSIF busy AND unawaited AND on_busy = 'reject' THEN
        RETURN jsonb_build_object('outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
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
        RETURN jsonb_build_object('outcome', 'waiting');
    END IF;

    -- Nobody holds the device. A turn whose process died comes first; then messages in order of arrival, but none
    -- whose waiter has gone: nobody would take its reply. A process that had many turns in a row lets others go first.
    LOOP
        SELECT m.* INTO first
            FROM @schema.conversation_messages m
            WHERE m.device_id = device
                AND m.status IN ('waiting', 'running')
                AND CASE
                    WHEN m.status = 'running' THEN true
                    WHEN message IS NULL THEN m.waiter_until <= moment
                    ELSE m.waiter_until > moment END
            ORDER BY m.status = 'running' DESC,
                state.worker_turns >= 8 AND m.worker IS NOT DISTINCT FROM state.last_worker,
                m.arrival
            LIMIT 1;
        IF NOT FOUND THEN
            RETURN jsonb_build_object('outcome', 'idle');
        END IF;
        EXIT WHEN first.attempts < max_attempts;
        UPDATE @schema.conversation_messages m
            SET status = 'dead', waiter_until = NULL,
                error = coalesce(m.error, 'the process that ran it died each time')
            WHERE m.device_id = device
                AND (m.message_id = first.message_id OR first.status = 'running' AND m.status = 'running');
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, lease_until = NULL, arrivals = state.arrivals WHERE s.device_id = key;
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
        AND NOT (first.merge AND @schema.moorline_merged_1(first, message, moment))
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
        RETURN jsonb_build_object('outcome', 'waiting');
    END IF;

    UPDATE @schema.conversation_messages m
        SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL
        WHERE m.device_id = device
            AND m.status = first.status
            AND (m.message_id = first.message_id
                OR m.status = 'running'
                OR m.claim_id = first.claim_id
                OR first.merge AND @schema.moorline_merged_1(first, m.message_id, moment));
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            fence = nextval('@schema.conversation_fences'),
            lease_until = moment + lease_seconds * interval '1 second',
            arrivals = state.arrivals,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id = key
        RETURNING s.* INTO state;
    RETURN @schema.moorline_claimed_1(state, moment);
END
$$;

-- Whether a waiting message is answered together with the first one: both merge, their contexts are equal, neither
-- answers an interrupt, neither ran before, and so it is with every message that waits between them. Those that ran
-- before stay together with those that they ran with, and with no others: the claim they had is their mark.
CREATE FUNCTION @schema.moorline_merged_1(
    first @schema.conversation_messages, message text, moment timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT first.resume IS NULL AND first.claim_id IS NULL AND coalesce(
        bool_and(b.merge AND b.resume IS NULL AND b.claim_id IS NULL AND b.context = first.context), false)
    FROM @schema.conversation_messages m
    JOIN @schema.conversation_messages b
        ON b.device_id = m.device_id AND b.arrival BETWEEN first.arrival AND m.arrival
    WHERE m.device_id = first.device_id AND m.message_id = message
        AND m.status = 'waiting' AND m.waiter_until > moment
        AND b.status = 'waiting' AND b.waiter_until > moment
$$;

-- What a claimed turn starts from.
CREATE FUNCTION @schema.moorline_claimed_1(
    state @schema.conversation_states, moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    first @schema.conversation_messages;
    messages jsonb;
    journal jsonb := '[]';
BEGIN
    SELECT jsonb_agg(jsonb_build_object('id', m.message_id, 'text', m.text) ORDER BY m.arrival) INTO STRICT messages
        FROM @schema.conversation_messages m
        WHERE m.device_id = state.device_id::text AND m.status = 'running' AND m.claim_id = state.claim_id;
    SELECT m.* INTO STRICT first
        FROM @schema.conversation_messages m
        WHERE m.device_id = state.device_id::text AND m.message_id = messages->0->>'id';
    IF first.attempts > 1 OR first.error IS NOT NULL THEN
        SELECT coalesce(
                jsonb_agg(
                    jsonb_build_object('kind', e.kind, 'name', e.name, 'intent', e.intent, 'result', e.result)
                    ORDER BY e.position),
                '[]')
            INTO STRICT journal
            FROM @schema.conversation_effects e
            WHERE e.device_id = first.device_id AND e.message_id = first.message_id;
    END IF;
    RETURN jsonb_build_object(
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
        'heads', state.heads);
END
$$;

-- A checkpoint with the values of its channels and the writes on top of it, an array a column. Each value is looked up
-- by its key: a join would be planned from guesses of how much a device has stored.
CREATE FUNCTION @schema.moorline_checkpoint_1(device text, ns text, id text) RETURNS TABLE (
    device_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[]
)
LANGUAGE sql STABLE
AS $$
    SELECT c.device_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
        c.versions, v.channels, v.versions, v.types, v.blobs, w.tasks, w.idxs, w.paths, w.channels, w.types, w.blobs
    FROM @schema.conversation_checkpoints c
    CROSS JOIN LATERAL (
        SELECT array_agg(n.channel) AS channels, array_agg(n.version) AS versions, array_agg(s.type) AS types,
            array_agg(s.blob) AS blobs
        FROM jsonb_each_text(c.versions) AS n (channel, version)
        CROSS JOIN LATERAL (
            SELECT sv.type, sv.blob
            FROM @schema.conversation_values sv
            WHERE sv.device_id = c.device_id AND sv.checkpoint_ns = c.checkpoint_ns
                AND sv.channel = n.channel AND sv.version = n.version
            LIMIT 1
        ) s
    ) v
    CROSS JOIN LATERAL (
        SELECT array_agg(sw.task_id) AS tasks, array_agg(sw.idx) AS idxs, array_agg(sw.task_path) AS paths,
            array_agg(sw.channel) AS channels, array_agg(sw.type) AS types, array_agg(sw.blob) AS blobs
        FROM @schema.conversation_writes sw
        WHERE sw.device_id = c.device_id AND sw.checkpoint_ns = c.checkpoint_ns
            AND sw.checkpoint_id = c.checkpoint_id
    ) w
    WHERE c.device_id = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = $3
$$;

-- What the given channels' values at a checkpoint are made of: going up its ancestors, the writes stored at each until,
-- for each channel, the first ancestor that has a value of it stored. depth counts upwards; rows without a task are
-- the stored values.
CREATE FUNCTION @schema.moorline_history_1(device text, ns text, id text, channels text[]) RETURNS TABLE (
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
        JOIN @schema.conversation_checkpoints a
            ON a.device_id = $1 AND a.checkpoint_ns = $2 AND a.checkpoint_id = k.parent_checkpoint_id
        WHERE k.missing <> '{}'
    )
    SELECT k.depth, k.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, NULL::text AS version, w.type, w.blob
    FROM walk k
    JOIN @schema.conversation_writes w
        ON w.device_id = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = k.checkpoint_id
            AND w.channel = ANY (k.sought)
    UNION ALL
    SELECT k.depth, k.checkpoint_id, NULL, NULL, NULL, v.channel, v.version, v.type, v.blob
    FROM walk k
    CROSS JOIN LATERAL unnest(k.sought) AS f (channel)
    JOIN @schema.conversation_values v
        ON v.device_id = $1 AND v.checkpoint_ns = $2
            AND v.channel = f.channel AND v.version = k.versions ->> f.channel
$$;

-- Begin: the claim, and with it the state that the turn's run will read first: the head of the manager and that of the
-- agent that holds the session, each with what its delta channels are made of. A row a head; without one a row that
-- has only the claim's answer. A head that the caller says it knows is left out.
CREATE FUNCTION @schema.moorline_begin_1(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_context jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, known jsonb
) RETURNS TABLE (
    answer jsonb,
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
AS $$
#variable_conflict use_column
DECLARE
    claimed jsonb := @schema.moorline_claim_1(
        device, message, claim, asking_worker, message_text, message_resume, message_context, on_busy, default_ttl,
        lease_seconds, waiter_seconds, max_attempts);
BEGIN
    RETURN QUERY
        SELECT claimed, c.*, d.channels, h.*
        FROM (SELECT) AS always
        LEFT JOIN (
            SELECT n.key AS ns, n.value AS head
            FROM jsonb_each_text(claimed->'heads') AS n
            WHERE n.key IN ('', claimed->>'active_agent') AND n.value IS DISTINCT FROM known->>n.key
        ) n ON true
        LEFT JOIN LATERAL @schema.moorline_checkpoint_1(device, n.ns, n.head) c ON n.ns IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT array_agg(k.channel) AS channels
            FROM jsonb_object_keys(c.metadata->'counters_since_delta_snapshot') AS k (channel)
        ) d ON true
        LEFT JOIN LATERAL (
            SELECT array_agg(w.depth), array_agg(w.checkpoint_id), array_agg(w.task_id), array_agg(w.idx),
                array_agg(w.task_path), array_agg(w.channel), array_agg(w.version), array_agg(w.type), array_agg(w.blob)
            FROM @schema.moorline_history_1(device, n.ns, n.head, d.channels) w
        ) h ON d.channels IS NOT NULL;
END
$$;

-- Commit: writes all that the turn leaves behind, if its fence still stands; else nothing. Idempotent: a turn
-- that was committed and is committed again (its acknowledgement was lost) answers true again.
-- Checkpoints, values and writes come as one array a column.
CREATE FUNCTION @schema.moorline_commit_1(
    device text, claim uuid, turn_fence bigint, turn jsonb,
    c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[], c_versions text[],
    v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[], w_type text[],
    w_blob bytea[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    number bigint;
    dropped text[];
    agent text := turn->>'active_agent';
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
    moment := clock_timestamp();
    IF state.claim_id IS DISTINCT FROM claim OR state.fence <> turn_fence THEN
        RETURN EXISTS (
            SELECT 1 FROM @schema.conversation_turns t
            WHERE t.device_id = device AND t.turn_no = (turn->>'turn_no')::bigint AND t.fence = turn_fence);
    END IF;
    number := state.last_turn_no + 1;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT device, c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb, number, turn_fence
        FROM unnest(c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (ns, id, parent, type, body, metadata, versions);
    INSERT INTO @schema.conversation_values
        (device_id, checkpoint_ns, channel, version, type, blob, fence)
        SELECT device, v.ns, v.channel, v.version, v.type, v.blob, turn_fence
        FROM unnest(v_ns, v_channel, v_version, v_type, v_blob) AS v (ns, channel, version, type, blob)
        ON CONFLICT DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob, fence)
        SELECT device, w.ns, w.id, w.task, w.idx, w.path, w.channel, w.type, w.blob, turn_fence
        FROM unnest(w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob)
            AS w (ns, id, task, idx, path, channel, type, blob);

    -- Namespaces that nothing will enter again: an interrupt kept them, and it is over.
    dropped := ARRAY(SELECT n.key FROM jsonb_each(state.heads) AS n WHERE NOT turn->'heads' ? n.key);
    IF dropped <> '{}' THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
    END IF;

    INSERT INTO @schema.conversation_turns
        (device_id, turn_no, fence, agent, reply, interrupt, handoffs, usage, status, attempts, started_at,
         committed_at)
        SELECT device, number, turn_fence, turn->>'agent', turn->>'reply', turn->'interrupt',
            ARRAY(SELECT jsonb_array_elements_text(turn->'handoffs')), turn->'usage', turn->>'status',
            (turn->>'attempts')::integer, (turn->>'started_at')::timestamptz, moment;
    UPDATE @schema.conversation_messages m
        SET status = turn->>'status', turn_no = number, claim_id = NULL, context = '{}', error = NULL
        WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    IF turn ? 'journal_of' THEN
        -- Effects stay on record; the answers that led to them have served.
        DELETE FROM @schema.conversation_effects e
            WHERE e.device_id = device AND e.message_id = turn->>'journal_of' AND e.kind = 'answer';
    END IF;
    UPDATE @schema.conversation_states s
        SET active_agent = agent,
            locked_at = CASE
                WHEN agent IS NULL THEN NULL
                WHEN (turn->>'lock_taken')::boolean THEN moment
                ELSE s.locked_at END,
            session_ttl = coalesce((turn->>'session_ttl')::integer, s.session_ttl),
            last_active_at = moment,
            last_turn_no = number,
            heads = turn->'heads',
            claim_id = NULL,
            lease_until = NULL
        WHERE s.device_id = key;
    RETURN true;
END
$$;

-- Heartbeat: renews the lease of a turn that is still running. False: another process has claimed since.
CREATE FUNCTION @schema.moorline_heartbeat_1(
    device text, claim uuid, turn_fence bigint, lease_seconds double precision
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = clock_timestamp() + lease_seconds * interval '1 second'
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence;
    RETURN FOUND;
END
$$;

-- Release: ends a turn that failed, so that the device goes on at once. Its messages wait for their next delivery, those
-- that nobody was told of (all but told) also for whoever recovers what was left behind; after max_attempts they are set
-- aside. A failure that is not the messages' own fault (give_back) does not count as an attempt.
CREATE FUNCTION @schema.moorline_release_1(
    device text, claim uuid, turn_fence bigint, told text, give_back boolean, failure text, max_attempts integer
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET claim_id = NULL, lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_messages m
        SET attempts = m.attempts - give_back::integer,
            status = CASE WHEN m.attempts - give_back::integer >= max_attempts THEN 'dead' ELSE 'waiting' END,
            waiter_until = CASE WHEN m.message_id IS DISTINCT FROM told THEN clock_timestamp() END,
            error = failure
        WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    RETURN true;
END
$$;

-- Abandon: leaves a turn as if its process had died now: whoever claims the device next has to finish it first.
CREATE FUNCTION @schema.moorline_abandon_1(device text, claim uuid, give_back boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.lease_until IS NOT NULL;
    IF FOUND AND give_back THEN
        UPDATE @schema.conversation_messages m
            SET attempts = m.attempts - 1
            WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    END IF;
END
$$;

-- Withdraw: for a message whose caller has gone before its turn began. It gives up its place in the queue; and if the
-- claim was won after all, only that nobody learned of it, the turn is let go and counts as no attempt.
CREATE FUNCTION @schema.moorline_withdraw_1(device text, message text, claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    IF EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = message AND m.claim_id = claim AND m.status = 'running')
    THEN
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, lease_until = NULL WHERE s.device_id = key AND s.claim_id = claim;
        IF FOUND THEN
            UPDATE @schema.conversation_messages m
                SET status = 'waiting', attempts = m.attempts - 1, waiter_until = clock_timestamp()
                WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
        END IF;
    ELSE
        PERFORM @schema.moorline_abandon_1(device, claim, true);
    END IF;
    UPDATE @schema.conversation_messages m SET waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = message AND m.status = 'waiting';
END
$$;

-- Turns: what claims a device for one message and what commits the turn's outcome.
--
-- A function's name carries its version, because two versions of the code may run on one schema.
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began:
-- what is read here after the device's row is locked is the state that the last turn left.

-- Begin: claims the device for its next turn, or says why not. Idempotent in claim: asked again with the same claim
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
CREATE FUNCTION @schema.moorline_begin_1(
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

    busy := coalesce(state.lease_until > moment, false);
    IF state.claim_id = claim THEN
        -- The answer to this very claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = moment + lease_seconds * interval '1 second' WHERE s.device_id = key;
        RETURN @schema.moorline_claimed_1(state, moment);
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
        IF busy AND on_busy = 'reject' THEN
            RETURN jsonb_build_object(
                'outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
        END IF;
        state.arrivals := state.arrivals + 1;
        INSERT INTO @schema.conversation_messages
            (device_id, message_id, arrival, text, resume, context, status, waiter_until, worker, merge)
            VALUES (device, message, state.arrivals, message_text, message_resume, message_context, 'waiting',
                    moment + waiter_seconds * interval '1 second', asking_worker, on_busy = 'merge');
    ELSIF own.status = 'waiting' THEN
        -- Whoever delivered it before may be waiting still; then this delivery waits for the same reply.
        IF busy AND on_busy = 'reject' AND coalesce(own.waiter_until <= moment, true) THEN
            RETURN jsonb_build_object(
                'outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
        END IF;
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
            SET status = 'dead', claim_id = NULL, waiter_until = NULL,
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
        AND NOT (first.merge AND @schema.moorline_merged_1(first, message, moment))
    THEN
        IF own.message_id IS NULL AND on_busy = 'reject' THEN
            DELETE FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
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
-- answers an interrupt, and so it is with every message that waits between them.
CREATE FUNCTION @schema.moorline_merged_1(
    first @schema.conversation_messages, message text, moment timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT first.resume IS NULL AND coalesce(bool_and(b.merge AND b.resume IS NULL AND b.context = first.context), false)
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

-- Release: ends a turn that failed and was told to its caller, so that the device goes on at once. The message
-- waits for its next delivery; after max_attempts it is set aside. A failure that is not the message's own
-- fault (give_back) does not count as an attempt.
CREATE FUNCTION @schema.moorline_release_1(
    device text, claim uuid, turn_fence bigint, give_back boolean, failure text, max_attempts integer
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
            claim_id = NULL, waiter_until = NULL, error = failure
        WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    RETURN true;
END
$$;

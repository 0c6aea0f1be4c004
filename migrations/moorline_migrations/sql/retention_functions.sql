-- Retention: what of a conversation is older than its operator wants it kept goes, a device at a time.

-- The rows that the memory of a device's agents is made of.
CREATE FUNCTION @schema.moorline_stored_2(device text) RETURNS bigint
LANGUAGE sql STABLE
AS $$
    SELECT (SELECT count(*) FROM @schema.conversation_checkpoints c WHERE c.device_id = device)
        + (SELECT count(*) FROM @schema.conversation_values v WHERE v.device_id = device)
        + (SELECT count(*) FROM @schema.conversation_writes w WHERE w.device_id = device)
$$;

-- Retire: removes what of a device is older than that many days, the turns of it up to `most` at a time, and answers
-- how many rows went. Asked again it goes on; once fewer than `most` went, nothing is left to go.
--
-- Nothing is done while a turn is open or somebody else has the device's row. A message goes with its turn; one that
-- has none goes by its age unless somebody waits with it; what a message's tools did goes with it at the latest.
-- Agents remember what their heads are made of as long as the device is in use. One that has been out of use for that
-- long keeps its lock and its numbers only, unless a question of an agent that holds the session can still be answered.
CREATE FUNCTION @schema.moorline_retire_2(device text, days double precision, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    oldest timestamptz := clock_timestamp() - days * interval '1 day';
    used_at timestamptz;
    asks boolean;
    last_turn bigint;
    removed bigint;
    gone bigint;
BEGIN
    SELECT s.* INTO state
        FROM @schema.conversation_states s
        WHERE s.device_id = key AND s.claim_id IS NULL
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    removed := @schema.moorline_stored_2(device);
    used_at := greatest(state.last_active_at, state.locked_at);
    asks := state.heads ? '' AND state.active_agent IS NOT NULL
        AND used_at + state.session_ttl * interval '1 second' > clock_timestamp();

    -- Turns are committed in the order of their numbers.
    SELECT max(t.turn_no) INTO last_turn
        FROM (
            SELECT n.turn_no, n.committed_at
            FROM @schema.conversation_turns n
            WHERE n.device_id = device
            ORDER BY n.turn_no
            LIMIT most
        ) t
        WHERE t.committed_at < oldest AND NOT (asks AND t.turn_no = state.last_turn_no);
    DELETE FROM @schema.conversation_messages m
        WHERE m.device_id = device
            AND CASE
                WHEN m.status IN ('done', 'interrupted') THEN m.turn_no <= last_turn
                WHEN m.status = 'dead' OR m.queued AND m.waiter_until IS NULL THEN m.received_at < oldest
                ELSE false END;
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

    -- Without a turn it is no device of the runtime, which alone says when one was in use.
    IF state.last_turn_no > 0 AND used_at < oldest AND NOT asks AND NOT EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND (m.queued OR m.received_at >= oldest))
    THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
        UPDATE @schema.conversation_states s SET heads = '{}' WHERE s.device_id = key AND s.heads <> '{}';
    ELSIF last_turn IS NOT NULL THEN
        PERFORM @schema.moorline_prune_2(device, state.heads, last_turn);
    END IF;
    RETURN removed - @schema.moorline_stored_2(device);
END
$$;

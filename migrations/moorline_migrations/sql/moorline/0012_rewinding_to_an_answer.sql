-- A turn with an answer for programs, which the column of its question holds too, has not asked.

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
CREATE OR REPLACE FUNCTION @schema.moorline_rewind(device text, last_turn bigint, keep_turns integer) RETURNS jsonb
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
    ELSIF turn.interrupt ? 'id'::text AND last_turn < state.last_turn_no THEN
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

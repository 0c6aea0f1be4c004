-- Stopping a turn.

ALTER TABLE @schema.conversation_messages ADD COLUMN stopped boolean NOT NULL DEFAULT false;

-- Claimed: what a turn starts from if its messages were stored before: those messages, the journal if they ran before,
-- and whether one of them was stopped.
CREATE OR REPLACE FUNCTION @schema.moorline_claimed(
    device text, state @schema.conversation_states, moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    first @schema.conversation_messages;
    messages jsonb;
    stopped boolean;
    journal jsonb := '[]'::jsonb;
BEGIN
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', m.message_id, 'text', m.text) ORDER BY m.arrival),
            pg_catalog.bool_or(m.stopped)
        INTO STRICT messages, stopped
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running';
    SELECT m.* INTO STRICT first
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = messages->0->>'id'::text;
    IF first.attempts > 1 OR first.error IS NOT NULL THEN
        SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'kind', e.kind, 'agent', e.agent, 'name', e.name, 'intent', e.intent, 'result', e.result)
                    ORDER BY e.position),
                '[]'::jsonb)
            INTO STRICT journal
            FROM @schema.conversation_effects e
            WHERE e.device_id = device AND e.message_id = first.message_id;
    END IF;
    RETURN @schema.moorline_answer(device, state, first, messages, journal, moment)
        || pg_catalog.jsonb_build_object('stopped', stopped);
END
$$;

-- Stop: marks a message as stopped, whose turn then ends as soon as the process that runs it notices. Returns whether
-- the message waits or runs. One that failed, and whose caller has learned of that, is left as it is.
CREATE FUNCTION @schema.moorline_stop(device text, message text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
BEGIN
    UPDATE @schema.conversation_messages m
        SET stopped = true
        WHERE m.device_id = device AND m.message_id = message
            AND (m.status = 'running' OR m.status = 'waiting' AND m.waiter_until > moment);
    RETURN FOUND;
END
$$;

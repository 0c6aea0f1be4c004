-- A question that words are about to answer is not cancelled, and a file that a device brings to a conversation which has
-- it already counts as what came last.

-- Cancel: closes the device's question, so that nothing can answer it any more. Returns whether one was waiting; one
-- that an open turn is about to answer, or to close, is not.
CREATE OR REPLACE FUNCTION @schema.moorline_cancel(device text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    s @schema.conversation_states;
BEGIN
    SELECT l.* INTO s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    IF NOT FOUND OR EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = ANY (s.open_messages) AND m.status = 'running')
    THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_turns t
        SET status = 'done'
        WHERE t.device_id = device AND t.turn_no = s.last_turn_no AND t.status = 'interrupted';
    RETURN FOUND;
END
$$;

-- Join: carries out a row of the queue with `joins`: its device leads to that conversation from now on, its messages
-- that wait and never ran go along in their order with their files, and the other devices there are told. `state` is
-- the row of the queue's device, which the caller has locked. Waits for no row but a file's. Returns
--   joined   it leads there.
--   gone     the conversation is gone, or the device has been erased or has moved elsewhere: nothing was done.
--   locked   another transaction has one of the rows: nothing was done.
CREATE OR REPLACE FUNCTION @schema.moorline_join(
    state @schema.conversation_states, request @schema.conversation_messages, moment timestamptz
) RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    here text := request.device_id;
    device text := coalesce(request.address, request.device_id);
    key @schema.conversation_states.device_id%TYPE := device;
    target_key @schema.conversation_states.device_id%TYPE := request.joins;
    own @schema.conversation_states := state;
    target @schema.conversation_states;
    arrived bigint;
    prefix text := CASE WHEN request.joins = device THEN '' ELSE device || pg_catalog.chr(31) END;
    cut integer := CASE WHEN request.address IS NULL THEN 1 ELSE pg_catalog.length(device) + 2 END;
    one text;
    said text;
    others jsonb;
    past text[];
    marks bytea;
    counted integer := 0;
BEGIN
    IF request.address IS NOT NULL THEN
        SELECT s.* INTO own
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (
            SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key)
        THEN
            RETURN 'locked';
        ELSIF own.leads_to IS DISTINCT FROM here THEN
            RETURN 'gone';
        END IF;
    ELSIF own.leads_to IS NOT NULL THEN
        RETURN 'gone';
    END IF;
    SELECT s.* INTO target
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) target_key
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN CASE
            WHEN EXISTS (
                SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) target_key)
            THEN 'locked'
            ELSE 'gone' END;
    END IF;

    arrived := target.arrivals;
    FOR one, said IN
        SELECT m.message_id, m.text
        FROM @schema.conversation_messages m
        WHERE m.device_id = here AND m.queued AND m.address IS NOT DISTINCT FROM request.address
            AND m.attempts = 0 AND m.error IS NULL AND m.message_id <> request.message_id
        ORDER BY m.arrival
    LOOP
        arrived := arrived + 1;
        UPDATE @schema.conversation_messages m
            SET device_id = request.joins,
                message_id = pg_catalog.concat(prefix, pg_catalog.substr(m.message_id, cut)),
                address = nullif(device, request.joins),
                arrival = arrived
            WHERE m.device_id = here AND m.message_id = one;
        IF pg_catalog.strpos(said, pg_catalog.concat(pg_catalog.chr(26), '[')) > 0 THEN
            INSERT INTO @schema.conversation_files AS o (device_id, hash, type, size, data, stored_at)
                SELECT request.joins, f.hash, f.type, f.size, f.data, f.stored_at
                FROM @schema.conversation_files f
                WHERE f.device_id = here AND pg_catalog.strpos(said, f.hash) > 0
                ON CONFLICT (device_id, hash) DO UPDATE SET stored_at = greatest(o.stored_at, excluded.stored_at);
        END IF;
    END LOOP;

    SELECT pg_catalog.jsonb_object_agg(n.id, 'joined') INTO others
        FROM (
            SELECT s.device_id::text AS id FROM @schema.conversation_states s WHERE s.leads_to = request.joins
            UNION ALL
            SELECT request.joins WHERE target.leads_to IS NULL
        ) n
        WHERE n.id <> device;
    UPDATE @schema.conversation_states s
        SET arrivals = arrived, notices = coalesce(s.notices || others, others, s.notices)
        WHERE s.device_id OPERATOR(pg_catalog.=) target_key;
    IF state.notices ? device THEN
        UPDATE @schema.conversation_states s
            SET notices = nullif(s.notices - device, '{}'::jsonb)
            WHERE s.device_id OPERATOR(pg_catalog.=) state.device_id;
    END IF;

    -- Where messages of the device stay that may be delivered again, and their marks. Marks of more than 1,000 would
    -- tell little.
    past := pg_catalog.array_remove(own.earlier, request.joins);
    marks := CASE
        WHEN own.earlier IS NULL THEN pg_catalog.decode(pg_catalog.repeat('00', 1024), 'hex')
        ELSE own.earlier_marks END;
    FOR one IN
        SELECT m.message_id
        FROM @schema.conversation_messages m
        WHERE m.device_id = here AND m.address IS NOT DISTINCT FROM request.address
            AND m.message_id <> request.message_id
        LIMIT 1001
    LOOP
        counted := counted + 1;
        marks := CASE WHEN counted <= 1000 THEN @schema.moorline_marked(marks, pg_catalog.substr(one, cut)) END;
    END LOOP;
    IF counted > 0 THEN
        past := pg_catalog.array_append(pg_catalog.array_remove(past, here), here);
        past := past[greatest(1, pg_catalog.cardinality(past) - 7):];
    END IF;
    UPDATE @schema.conversation_states s
        SET leads_to = nullif(request.joins, device),
            linked_at = CASE WHEN request.joins <> device THEN moment END,
            earlier = CASE WHEN pg_catalog.cardinality(past) > 0 THEN past END,
            earlier_marks = CASE WHEN pg_catalog.cardinality(past) > 0 THEN marks END,
            given_away = own.given_away OR request.address IS NULL AND EXISTS (
                SELECT 1 FROM @schema.conversation_states o WHERE o.leads_to = here)
        WHERE s.device_id OPERATOR(pg_catalog.=) key;
    RETURN 'joined';
END
$$;

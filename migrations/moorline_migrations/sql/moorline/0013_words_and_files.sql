-- A question that words are about to answer is not cancelled, and a file that a device brings to a conversation which has
-- it already counts as what came last. Files go with the messages that named them when a device is erased, and files whose
-- message never came go with cleanups.

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

-- Drop messages: removes these messages of a conversation, with the files that no other message there names.
CREATE FUNCTION @schema.moorline_drop_messages(conversation text, doomed text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    DELETE FROM @schema.conversation_files f
        WHERE f.device_id = conversation
            AND EXISTS (
                SELECT 1 FROM @schema.conversation_messages m
                WHERE m.device_id = conversation AND m.message_id = ANY (doomed)
                    AND pg_catalog.strpos(m.text, f.hash) > 0)
            AND NOT EXISTS (
                SELECT 1 FROM @schema.conversation_messages m
                WHERE m.device_id = conversation AND m.message_id <> ALL (doomed)
                    AND pg_catalog.strpos(m.text, f.hash) > 0);
    DELETE FROM @schema.conversation_messages m WHERE m.device_id = conversation AND m.message_id = ANY (doomed);
END
$$;

-- Depart: removes what a shared conversation has of a device's address. What it said and what was done for it stays; its
-- messages that were not answered are removed, and a turn that answers one becomes stale.
CREATE OR REPLACE FUNCTION @schema.moorline_depart(conversation text, device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(conversation);
    one text;
    other text;
BEGIN
    PERFORM @schema.moorline_hold(conversation);
    UPDATE @schema.conversation_states s
        SET claim_id = NULL, claimed_at = NULL, lease_until = NULL, open_messages = NULL
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = conversation AND m.address = device AND m.status = 'running');
    UPDATE @schema.conversation_states s
        SET notices = nullif(s.notices - device, '{}'::jsonb)
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.notices ? device;
    DELETE FROM @schema.conversation_effects e
        WHERE e.device_id = conversation AND EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = conversation AND m.message_id = e.message_id AND m.address = device
                AND m.status NOT IN ('done', 'interrupted'));
    PERFORM @schema.moorline_drop_messages(conversation, ARRAY(
        SELECT m.message_id FROM @schema.conversation_messages m
        WHERE m.device_id = conversation AND m.address = device AND m.status NOT IN ('done', 'interrupted')));
    FOR one IN
        SELECT m.message_id
        FROM @schema.conversation_messages m
        WHERE m.device_id = conversation AND m.address = device
    LOOP
        other := pg_catalog.gen_random_uuid();
        UPDATE @schema.conversation_messages m
            SET message_id = other, address = NULL
            WHERE m.device_id = conversation AND m.message_id = one;
        UPDATE @schema.conversation_effects e
            SET message_id = other
            WHERE e.device_id = conversation AND e.message_id = one;
        UPDATE @schema.conversation_turns t
            SET run = t.run || pg_catalog.jsonb_build_object('message_id', other)
            WHERE t.device_id = conversation AND t.run->>'message_id'::text = one;
    END LOOP;
END
$$;

-- Erase device: removes an address: what its own conversation has, in every component, its link, its code, and its name
-- from the conversations that it shared. Where it was the last, the conversation is removed as well, unless it is a
-- person's. If its own conversation is somebody else's by now, that stays theirs, and the address leads to a new one.
-- Returns whether there was anything.
CREATE OR REPLACE FUNCTION @schema.moorline_erase_device(device text, default_ttl integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    s @schema.conversation_states;
    place text;
    place_key @schema.conversation_states.device_id%TYPE;
    moment timestamptz := pg_catalog.clock_timestamp();
BEGIN
    SELECT l.* INTO s FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key FOR UPDATE;
    FOR place IN
        SELECT s.leads_to WHERE s.leads_to IS NOT NULL
        UNION
        SELECT m.device_id FROM @schema.conversation_messages m WHERE m.address = device
        ORDER BY 1
    LOOP
        PERFORM @schema.moorline_depart(place, device);
        place_key := @schema.moorline_key(place);
        IF EXISTS (
                SELECT 1 FROM @schema.conversation_states l
                WHERE l.device_id OPERATOR(pg_catalog.=) place_key AND l.leads_to IS NOT NULL)
            AND NOT EXISTS (
                SELECT 1 FROM @schema.conversation_states o
                WHERE o.leads_to = place AND o.device_id::text <> device)
            AND NOT EXISTS (SELECT 1 FROM @schema.moorline_people p WHERE p.device_id = place)
        THEN
            PERFORM @schema.moorline_erase_conversation(place);
        END IF;
    END LOOP;
    IF NOT @schema.moorline_is_others(device) THEN
        RETURN @schema.moorline_erase_everywhere(device);
    END IF;
    place := @schema.moorline_new_conversation(default_ttl);
    DELETE FROM @schema.moorline_codes c WHERE c.device_id = device;
    PERFORM @schema.moorline_drop_messages(device, ARRAY(
        SELECT m.message_id FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.address IS NULL AND m.queued AND m.attempts = 0));
    UPDATE @schema.conversation_states l
        SET leads_to = place,
            linked_at = moment,
            earlier = NULL,
            earlier_marks = NULL,
            given_away = true,
            notices = nullif(l.notices - device, '{}'::jsonb)
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN true;
END
$$;

-- Expire files: removes at most so many of the files that were kept over an hour ago for a device of which nothing else
-- is stored: their message never came, or the device was erased while they were kept. Returns how many.
CREATE FUNCTION @schema.moorline_expire_files(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    number integer;
BEGIN
    DELETE FROM @schema.conversation_files f
        USING (
            SELECT n.device_id, n.hash
            FROM @schema.conversation_files n
            WHERE n.stored_at < pg_catalog.clock_timestamp() - interval '1 hour'
                AND NOT EXISTS (
                    SELECT 1 FROM @schema.conversation_states s WHERE s.device_id::text = n.device_id)
            LIMIT most
        ) o
        WHERE f.device_id = o.device_id AND f.hash = o.hash;
    GET DIAGNOSTICS number = ROW_COUNT;
    RETURN number;
END
$$;

-- A device that has left a conversation knows which of its messages may be there, so that a new one is looked up in one
-- conversation only. The head of schema.sql explains the column.

ALTER TABLE @schema.conversation_states ADD COLUMN earlier_marks bytea;

COMMENT ON COLUMN @schema.conversation_states.earlier_marks IS 'Added by Moorline: marks of its messages in those';

-- Marked: the marks with those of one message more, which are four bits of its hash. If nothing changes, the message may
-- be one that is marked already; otherwise it is none of them. (It is a Bloom filter: with 500 messages in 8,192 bits it
-- takes 1 in 500 others for marked, with 1,000 messages 1 in 50.)
CREATE FUNCTION @schema.moorline_marked(marks bytea, message text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT
AS $$
DECLARE
    hash bytea := pg_catalog.sha256(pg_catalog.convert_to(message, 'UTF8'));
    bits integer;
    at integer;
BEGIN
    FOR place IN 0..3 LOOP
        bits := pg_catalog.get_byte(hash, 2 * place) * 256 + pg_catalog.get_byte(hash, 2 * place + 1);
        at := bits / 8 % 1024;
        marks := pg_catalog.set_byte(marks, at, pg_catalog.get_byte(marks, at) | (1 << (bits % 8)));
    END LOOP;
    RETURN marks;
END
$$;

-- Join: carries out a row of the queue with `joins`: its device leads to that conversation from now on, its messages
-- that wait and never ran go along in their order, and the other devices there are told. `state` is the row of the
-- queue's device, which the caller has locked. Never waits for a row. Returns
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
    FOR one IN
        SELECT m.message_id
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

-- Claim: claims the device for its next turn, or says why not. It never waits for the device's row. Idempotent in
-- claim: called again with the same claim it returns the same turn. A message that has to wait keeps its place in the
-- queue for waiter_seconds; if nothing is before it, it runs at once without queueing. Without a message it only looks
-- for what a crashed process left: its turn, or a message that waited there.
--
-- A device that leads elsewhere is claimed for the conversation that it leads to, or for one that it has left if the
-- message is stored there: the answer then says so in "conversation". If the message is a person's and the device does
-- not lead to the person's conversation, it joins that first. With `joining` the message is no message: it stands in
-- the queue for the device to join that conversation.
--
-- The answer's "outcome" is
--   claimed       the turn to run now: its fence, number, messages, lock and heads, its journal if it was run before,
--                 and the effects of the device's unfinished messages (null if none). Its messages are the caller's own
--                 (with those merged into it), or those of a turn that a crashed process left and that has to be
--                 finished first.
--   replayed      the message was answered before: the stored reply.
--   waiting       the message is in the queue, or is being answered right now: ask again.
--   busy          another turn is running and the caller does not wait; nothing was stored.
--   other_spelling  the column device_id takes another device ID for the same; nothing was stored.
--   full          the message would have to wait, and queue_max messages of the device wait already; nothing was stored.
--   stale_resume  the message answers an interrupt that no longer waits for an answer; nothing was stored, and if the
--                 message was in the queue, it has been removed.
--   dead          the message was set aside after max_attempts.
--   idle          there is nothing that a crashed process left.
--   locked        another transaction has the device's row, or the conversation has just been changed: ask again.
--   joined        the device leads to the conversation that it was to join.
--   gone          the conversation that it was to join is gone, or the device was erased meanwhile.
--   unknown_person  the person has no conversation yet (moorline_know_person): nothing was done.
CREATE OR REPLACE FUNCTION @schema.moorline_claim_2(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_values jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, queue_max integer, person text, joining text
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    asked text := device;
    address text;
    place text;
    stored_in text;
    request text;
    held text;
    told text;
    joined text;
    key @schema.conversation_states.device_id%TYPE := device;
    policy record;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    first @schema.conversation_messages;
    chosen text[];
    messages jsonb;
    unawaited boolean;
    busy boolean;
    fair boolean;
    following @schema.conversation_messages;
    size bigint;
    next_fence bigint;
    moment timestamptz;
    lease timestamptz;
    waiter timestamptz;
BEGIN
    -- What a message does if its device is busy: it waits, is rejected, or waits and is answered together with the
    -- messages next to it.
    SELECT p.waits, p.rejects, p.merges INTO policy
        FROM (VALUES
            ('wait', true, false, false),
            ('reject', false, true, false),
            ('merge', true, false, true)
        ) AS p (name, waits, rejects, merges)
        WHERE p.name = on_busy;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ML002',
            MESSAGE = pg_catalog.format('there is no policy %s for a busy device', on_busy),
            HINT = 'Use wait, reject or merge.';
    END IF;

    LOOP
        SELECT s.* INTO state
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key;
            IF FOUND THEN
                moment := pg_catalog.clock_timestamp();
                IF policy.rejects AND state.lease_until > moment AND state.claim_id <> claim AND NOT EXISTS (
                    SELECT 1 FROM @schema.conversation_messages m
                    WHERE m.device_id = device AND m.message_id = message
                        AND NOT (m.status = 'waiting' AND coalesce(m.waiter_until <= moment, true)))
                THEN
                    RETURN pg_catalog.jsonb_build_object('outcome', 'busy', 'retry_after',
                        @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
                END IF;
                RETURN '{"outcome": "locked"}'::jsonb;
            ELSIF message IS NULL THEN
                RETURN '{"outcome": "idle"}'::jsonb;
            ELSIF message_resume IS NOT NULL THEN
                RETURN pg_catalog.jsonb_build_object('outcome', 'stale_resume', 'resume', message_resume);
            END IF;
            INSERT INTO @schema.conversation_states AS s (device_id, session_ttl) VALUES (key, default_ttl)
                ON CONFLICT (device_id) DO NOTHING
                RETURNING s.* INTO state;
            IF NOT FOUND THEN
                RETURN '{"outcome": "locked"}'::jsonb;
            END IF;
        END IF;
        IF state.device_id::text COLLATE pg_catalog."C" <> device THEN  -- a collation may take both for one
            RETURN '{"outcome": "other_spelling"}'::jsonb;
        END IF;
        EXIT WHEN address IS NOT NULL OR message IS NULL OR state.leads_to IS NULL AND state.earlier IS NULL;
        -- A message that was stored before the device left a conversation is dealt with there. For one whose marks are
        -- missing, which is new, nothing is looked up there.
        IF state.earlier IS NOT NULL
            AND coalesce(@schema.moorline_marked(state.earlier_marks, message) = state.earlier_marks, true)
        THEN
            FOREACH place IN ARRAY state.earlier LOOP
                request := CASE
                    WHEN place = device THEN message
                    ELSE pg_catalog.concat(device, pg_catalog.chr(31), message) END;
                SELECT m.device_id INTO stored_in
                    FROM @schema.conversation_messages m
                    WHERE m.device_id = place AND m.message_id = request;
                EXIT WHEN FOUND;
            END LOOP;
        END IF;
        place := coalesce(stored_in, state.leads_to, device);
        EXIT WHEN place = device;
        address := device;
        message := pg_catalog.concat(device, pg_catalog.chr(31), message);
        device := place;
        key := place;
    END LOOP;
    moment := pg_catalog.clock_timestamp();
    lease := moment + lease_seconds * interval '1 second';
    waiter := moment + waiter_seconds * interval '1 second';

    SELECT m.* INTO own FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
    IF own.status IN ('done', 'interrupted') THEN
        RETURN (
            SELECT pg_catalog.jsonb_build_object(
                'outcome', 'replayed', 'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply,
                'handoffs', t.handoffs, 'usage', t.usage, 'interrupt', t.interrupt,
                'other_text', own.text <> message_text, 'notice', own.notice)
            FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = own.turn_no);
    ELSIF own.status = 'dead' THEN
        RETURN pg_catalog.jsonb_build_object('outcome', 'dead', 'error', own.error);
    ELSIF state.claim_id = claim THEN
        -- The answer to this claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = lease
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        SELECT m.* INTO first
            FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = ANY (state.open_messages)
            ORDER BY m.arrival
            LIMIT 1;
        RETURN @schema.moorline_claimed(device, state, moment) || @schema.moorline_whose(asked, device, first);
    ELSIF joining = device THEN
        RETURN '{"outcome": "joined"}'::jsonb;
    END IF;

    IF person IS NOT NULL AND stored_in IS NULL AND coalesce(own.attempts = 0, true) THEN
        SELECT p.device_id INTO place FROM @schema.moorline_people p WHERE p.person_id = person;
        IF NOT FOUND THEN
            RETURN '{"outcome": "unknown_person"}'::jsonb;
        ELSIF place <> device THEN
            -- The device joins it as soon as what is before this message in the queue is done.
            request := pg_catalog.concat(address || pg_catalog.chr(31), pg_catalog.chr(31), 'person');
            UPDATE @schema.conversation_messages m
                SET waiter_until = waiter, worker = asking_worker, joins = place
                WHERE m.device_id = device AND m.message_id = request;
            IF NOT FOUND THEN
                state.arrivals := state.arrivals + 1;
                INSERT INTO @schema.conversation_messages
                    (device_id, message_id, arrival, text, status, waiter_until, worker, address, joins)
                    VALUES (device, request, state.arrivals, '', 'waiting', waiter, asking_worker, address, place);
                UPDATE @schema.conversation_states s
                    SET arrivals = state.arrivals
                    WHERE s.device_id OPERATOR(pg_catalog.=) key;
            END IF;
        END IF;
    END IF;
    IF state.notices IS NOT NULL THEN
        told := state.notices->>coalesce(address, device);
    END IF;

    -- Nobody waits for this message now: its earlier caller, if there was one, has gone.
    unawaited := own.message_id IS NULL OR own.status = 'waiting' AND coalesce(own.waiter_until <= moment, true);
    busy := coalesce(state.lease_until > moment, false);
    IF own.status = 'waiting' THEN
        message_resume := own.resume;
    END IF;
    IF message_resume IS NOT NULL AND coalesce(own.status = 'waiting', true)
        AND NOT @schema.moorline_asks(device, state.last_turn_no, message_resume->>'interrupt_id'::text)
    THEN
        DELETE FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
        RETURN pg_catalog.jsonb_build_object('outcome', 'stale_resume', 'resume', message_resume);
    ELSIF busy AND unawaited AND policy.rejects THEN
        RETURN pg_catalog.jsonb_build_object('outcome', 'busy', 'retry_after',
            @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
        state.arrivals := state.arrivals + 1;
        IF state.claim_id IS NULL AND joining IS NULL AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued)
        THEN
            INSERT INTO @schema.conversation_messages AS m
                (device_id, message_id, arrival, text, resume, values, status, attempts, claim_id, merge, address,
                 notice)
                VALUES (device, message, state.arrivals, message_text, message_resume, message_values, 'running', 1,
                        claim, policy.merges, address, told)
                RETURNING m.* INTO first;
            chosen := ARRAY[message];
            messages := pg_catalog.jsonb_build_array(
                pg_catalog.jsonb_build_object('id', message, 'text', message_text));
        ELSIF @schema.moorline_queue_full(device, queue_max, moment) THEN
            RETURN pg_catalog.jsonb_build_object('outcome', 'full', 'retry_after',
                @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
        ELSE
            INSERT INTO @schema.conversation_messages
                (device_id, message_id, arrival, text, resume, values, status, waiter_until, worker, merge, address,
                 joins)
                VALUES (device, message, state.arrivals, message_text, message_resume, message_values, 'waiting',
                        waiter, asking_worker, policy.merges, address, joining);
        END IF;
    ELSIF own.status = 'waiting' THEN
        IF unawaited AND @schema.moorline_queue_full(device, queue_max, moment) THEN
            RETURN pg_catalog.jsonb_build_object('outcome', 'full', 'retry_after',
                @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
        END IF;
        UPDATE @schema.conversation_messages m
            SET waiter_until = waiter, worker = asking_worker
            WHERE m.device_id = device AND m.message_id = message;
        IF NOT FOUND THEN
            -- An earlier caller has given it up meanwhile: it comes anew.
            RETURN '{"outcome": "locked"}'::jsonb;
        END IF;
    END IF;

    IF busy THEN
        UPDATE @schema.conversation_states s
            SET arrivals = state.arrivals
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.arrivals <> state.arrivals;
        RETURN '{"outcome": "waiting"}'::jsonb;
    END IF;

    IF chosen IS NULL THEN
        -- No turn is open, or the open one's process died: that turn comes first. Then come messages in order of
        -- arrival, except those whose caller has gone, since nobody would take the reply. A process that had many turns
        -- in a row lets others go first, unless a device waits to join another conversation: what comes after that
        -- must not pass it. Messages that failed too often are set aside here, and those that answer a closed interrupt
        -- are deleted.
        fair := CASE WHEN state.worker_turns >= 8 THEN NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.queued AND m.joins IS NOT NULL) END;
        LOOP
            SELECT m.* INTO first
                FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running'
                ORDER BY m.arrival
                LIMIT 1;
            IF NOT FOUND THEN
                SELECT m.* INTO first
                    FROM @schema.conversation_messages m
                    WHERE m.device_id = device AND m.queued
                        AND (message IS NULL AND m.waiter_until <= moment
                            OR message IS NOT NULL AND m.waiter_until > moment)
                        AND (held IS NULL OR coalesce(m.address, device) <> held)
                    ORDER BY coalesce(fair AND m.worker IS NOT DISTINCT FROM state.last_worker, false), m.arrival
                    LIMIT 1;
            END IF;
            IF NOT FOUND THEN
                EXIT WHEN held IS NOT NULL;
                RETURN '{"outcome": "idle"}'::jsonb;
            ELSIF first.joins IS NOT NULL THEN
                joined := CASE WHEN message IS NULL THEN 'gone' ELSE @schema.moorline_join(state, first, moment) END;
                IF joined = 'locked' THEN
                    EXIT WHEN held IS NOT NULL;
                    -- Messages of other devices do not wait for a row that only this one needs.
                    held := coalesce(first.address, device);
                    CONTINUE;
                END IF;
                DELETE FROM @schema.conversation_messages m
                    WHERE m.device_id = device AND m.message_id = first.message_id;
                CONTINUE WHEN message IS NULL;
                UPDATE @schema.conversation_states s
                    SET arrivals = state.arrivals
                    WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.arrivals < state.arrivals;
                -- The caller's own message may be elsewhere now.
                RETURN pg_catalog.jsonb_build_object(
                    'outcome', CASE WHEN first.message_id = message THEN joined ELSE 'locked' END);
            END IF;
            chosen := CASE WHEN first.status = 'running' THEN state.open_messages ELSE ARRAY[first.message_id] END;
            IF first.attempts >= max_attempts THEN
                UPDATE @schema.conversation_messages m
                    SET status = 'dead', waiter_until = NULL,
                        error = coalesce(m.error, 'the process that ran it died each time')
                    WHERE m.device_id = device AND m.message_id = ANY (chosen) AND m.status = first.status;
                UPDATE @schema.conversation_states s
                    SET claim_id = NULL, claimed_at = NULL, lease_until = NULL, open_messages = NULL,
                        arrivals = state.arrivals
                    WHERE s.device_id OPERATOR(pg_catalog.=) key
                    RETURNING s.* INTO state;
                IF message = ANY (chosen) THEN
                    RETURN (
                        SELECT pg_catalog.jsonb_build_object('outcome', 'dead', 'error', m.error)
                        FROM @schema.conversation_messages m
                        WHERE m.device_id = device AND m.message_id = message);
                END IF;
            ELSIF first.status = 'waiting' AND first.resume IS NOT NULL
                AND NOT @schema.moorline_asks(device, state.last_turn_no, first.resume->>'interrupt_id'::text)
            THEN
                DELETE FROM @schema.conversation_messages m
                    WHERE m.device_id = device AND m.message_id = first.message_id;
            ELSE
                held := NULL;
                EXIT;
            END IF;
        END LOOP;
        IF held IS NOT NULL THEN
            UPDATE @schema.conversation_states s
                SET arrivals = state.arrivals
                WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.arrivals <> state.arrivals;
            RETURN '{"outcome": "locked"}'::jsonb;
        END IF;

        -- Messages that ran together before run together again, and with no others; they share a claim_id. Otherwise a
        -- message that merges is answered together with those after it, up to the first that does not merge, answers an
        -- interrupt, ran before, has other values, came from another device, or would make the turn too large: of more
        -- than 32 messages, or more than 32 KiB of text.
        IF first.status = 'waiting' AND first.claim_id IS NOT NULL THEN
            SELECT pg_catalog.array_agg(m.message_id) INTO chosen
                FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.queued AND m.claim_id = first.claim_id;
        ELSIF first.status = 'waiting' AND first.merge AND first.resume IS NULL THEN
            size := pg_catalog.octet_length(first.text);
            FOR following IN
                SELECT m.*
                FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.queued AND m.arrival > first.arrival AND m.waiter_until > moment
                ORDER BY m.arrival
                LIMIT 31
            LOOP
                size := size + pg_catalog.octet_length(following.text);
                EXIT WHEN size > 32768 OR NOT following.merge OR following.resume IS NOT NULL
                    OR following.claim_id IS NOT NULL OR following.values <> first.values
                    OR following.address IS DISTINCT FROM first.address;
                chosen := pg_catalog.array_append(chosen, following.message_id);
            END LOOP;
        END IF;

        IF first.status = 'waiting' AND NOT coalesce(message = ANY (chosen), true) THEN
            IF unawaited AND NOT policy.waits THEN
                IF own.message_id IS NULL THEN
                    DELETE FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
                ELSE
                    UPDATE @schema.conversation_messages m
                        SET waiter_until = NULL
                        WHERE m.device_id = device AND m.message_id = message;
                END IF;
                RETURN pg_catalog.jsonb_build_object('outcome', 'busy', 'retry_after',
                    @schema.moorline_retry_after(device, NULL::timestamptz, lease, moment));
            END IF;
            UPDATE @schema.conversation_states s
                SET arrivals = state.arrivals
                WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.arrivals <> state.arrivals;
            RETURN '{"outcome": "waiting"}'::jsonb;
        END IF;
        told := state.notices->>coalesce(first.address, device);
        UPDATE @schema.conversation_messages m
            SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL,
                notice = coalesce(told, m.notice)
            WHERE m.device_id = device AND m.message_id = ANY (chosen) AND m.status = first.status;
        -- One that was given up meanwhile has been deleted.
        chosen := ARRAY(
            SELECT m.message_id
            FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = ANY (chosen) AND m.status = 'running' AND m.claim_id = claim);
        IF pg_catalog.cardinality(chosen) = 0 THEN
            UPDATE @schema.conversation_states s
                SET arrivals = state.arrivals
                WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.arrivals <> state.arrivals;
            RETURN '{"outcome": "waiting"}'::jsonb;
        END IF;
    END IF;

    IF told IS NOT NULL THEN
        first.notice := told;
        state.notices := nullif(state.notices - coalesce(first.address, device), '{}'::jsonb);
    END IF;

    -- The fence only orders the device's claims. Because it follows the clock, it keeps rising after an erasure;
    -- because it exceeds the last one, it rises even if the clock was set back.
    next_fence := greatest(
        state.fence + 1, (pg_catalog.date_part('epoch', moment) * 1000000::double precision)::bigint);
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            -- A turn that is taken over began when it was first claimed.
            claimed_at = CASE WHEN state.claim_id IS NULL THEN moment ELSE coalesce(state.claimed_at, moment) END,
            lease_until = lease,
            fence = next_fence,
            open_messages = chosen,
            arrivals = state.arrivals,
            notices = state.notices,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id OPERATOR(pg_catalog.=) key
        RETURNING s.* INTO STRICT state;
    IF messages IS NULL THEN
        RETURN @schema.moorline_claimed(device, state, moment) || @schema.moorline_whose(asked, device, first);
    ELSIF address IS NULL AND told IS NULL THEN
        RETURN @schema.moorline_answer(device, state, first, messages, '[]'::jsonb, moment);
    END IF;
    RETURN @schema.moorline_answer(device, state, first, messages, '[]'::jsonb, moment)
        || @schema.moorline_whose(asked, device, first);
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
    DELETE FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.address IS NULL AND m.queued AND m.attempts = 0;
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

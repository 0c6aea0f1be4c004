-- People: a device is an address that leads to a conversation. The head of schema.sql explains the tables and columns.

ALTER TABLE @schema.conversation_states
    ADD COLUMN leads_to text,
    ADD COLUMN linked_at timestamptz,
    ADD COLUMN earlier text[],
    ADD COLUMN given_away boolean,
    ADD COLUMN notices jsonb;

CREATE INDEX idx_conversation_states_leads_to ON @schema.conversation_states (leads_to) WHERE leads_to IS NOT NULL;

COMMENT ON COLUMN @schema.conversation_states.leads_to IS 'Added by Moorline: the conversation that the device joined';
COMMENT ON COLUMN @schema.conversation_states.linked_at IS 'Added by Moorline: when the device joined it';
COMMENT ON COLUMN @schema.conversation_states.earlier IS 'Added by Moorline: the conversations that the device has left';
COMMENT ON COLUMN @schema.conversation_states.given_away IS 'Added by Moorline: whether its own conversation was left to others';
COMMENT ON COLUMN @schema.conversation_states.notices IS 'Added by Moorline: what each device is told with its next reply';
COMMENT ON INDEX @schema.idx_conversation_states_leads_to IS 'Added by Moorline: the devices that joined a conversation';

ALTER TABLE @schema.conversation_messages
    ADD COLUMN address text,
    ADD COLUMN joins text,
    ADD COLUMN notice text;

CREATE INDEX conversation_messages_address ON @schema.conversation_messages (address) WHERE address IS NOT NULL;

CREATE TABLE @schema.moorline_people (
    person_id text PRIMARY KEY,
    device_id text NOT NULL UNIQUE
);

CREATE TABLE @schema.moorline_codes (
    device_id  text PRIMARY KEY,
    code       bytea NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL
);

CREATE TABLE @schema.moorline_tries (
    name   bytea PRIMARY KEY,
    failed integer NOT NULL,
    until  timestamptz NOT NULL
);

-- Conversation: the conversation that the device leads to, by default its own. Exactly one step is followed.
CREATE FUNCTION @schema.moorline_conversation(device text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    RETURN coalesce(
        (SELECT s.leads_to FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key), device);
END
$$;

-- Stored ID: the ID under which a conversation has a device's message.
CREATE FUNCTION @schema.moorline_stored_id(device text, conversation text, message text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN CASE
        WHEN conversation = device THEN message
        ELSE pg_catalog.concat(device, pg_catalog.chr(31), message) END;
END
$$;

-- Given ID: the ID that the device gave to a stored message.
CREATE FUNCTION @schema.moorline_given_id(address text, message text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN CASE
        WHEN address IS NULL THEN message
        ELSE pg_catalog.substr(message, pg_catalog.length(address) + 2) END;
END
$$;

-- Place: the conversation in which the device's message is stored: the one that it leads to, unless the message is in
-- one that it has left.
CREATE FUNCTION @schema.moorline_place(device text, message text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    s @schema.conversation_states;
    place text;
    id text;
BEGIN
    SELECT l.* INTO s FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key;
    FOREACH place IN ARRAY coalesce(s.earlier, '{}'::text[]) LOOP
        id := @schema.moorline_stored_id(device, place, message);
        IF EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = place AND m.message_id = id)
        THEN
            RETURN place;
        END IF;
    END LOOP;
    RETURN coalesce(s.leads_to, device);
END
$$;

-- New conversation: one that is no device's own. Its row leads to an ID that nobody has, so that whoever wrote from an
-- address of its name would not be in it.
CREATE FUNCTION @schema.moorline_new_conversation(default_ttl integer) RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    made @schema.conversation_states.device_id%TYPE := pg_catalog.gen_random_uuid();
    nobody text := pg_catalog.gen_random_uuid();
BEGIN
    INSERT INTO @schema.conversation_states (device_id, session_ttl, leads_to) VALUES (made, default_ttl, nobody);
    RETURN made;
END
$$;

-- Know person: gives a person a conversation: the one of the device with which the person comes first, unless that is
-- another person's; then a new one.
CREATE FUNCTION @schema.moorline_know_person(person text, device text, default_ttl integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    conversation text := @schema.moorline_conversation(device);
BEGIN
    LOOP
        EXIT WHEN EXISTS (SELECT 1 FROM @schema.moorline_people p WHERE p.person_id = person);
        IF EXISTS (SELECT 1 FROM @schema.moorline_people p WHERE p.device_id = conversation) THEN
            conversation := @schema.moorline_new_conversation(default_ttl);
        END IF;
        INSERT INTO @schema.moorline_people (person_id, device_id) VALUES (person, conversation)
            ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- Join: carries out a row of the queue with `joins`: its device leads to that conversation from now on, its messages
-- that wait and never ran go along in their order, and the other devices there are told. `state` is the row of the
-- queue's device, which the caller has locked. Never waits for a row. Returns
--   joined   it leads there.
--   gone     the conversation is gone, or the device has been erased or has moved elsewhere: nothing was done.
--   locked   another transaction has one of the rows: nothing was done.
CREATE FUNCTION @schema.moorline_join(
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

    -- Where messages of the device stay that may be delivered again.
    past := pg_catalog.array_remove(own.earlier, request.joins);
    IF EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = here AND m.address IS NOT DISTINCT FROM request.address
            AND m.message_id <> request.message_id)
    THEN
        past := pg_catalog.array_append(pg_catalog.array_remove(past, here), here);
        past := past[greatest(1, pg_catalog.cardinality(past) - 7):];
    END IF;
    UPDATE @schema.conversation_states s
        SET leads_to = nullif(request.joins, device),
            linked_at = CASE WHEN request.joins <> device THEN moment END,
            earlier = CASE WHEN pg_catalog.cardinality(past) > 0 THEN past END,
            given_away = own.given_away OR request.address IS NULL AND EXISTS (
                SELECT 1 FROM @schema.conversation_states o WHERE o.leads_to = here)
        WHERE s.device_id OPERATOR(pg_catalog.=) key;
    RETURN 'joined';
END
$$;

-- Whose: what the answer to a claim says beside the turn, if the conversation is another than that of the device that
-- asked, or the turn's messages came from another device, or there is something to tell their device.
CREATE FUNCTION @schema.moorline_whose(
    asked text, conversation text, first @schema.conversation_messages
) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF asked = conversation AND first.address IS NULL AND first.notice IS NULL THEN
        RETURN '{}'::jsonb;
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'conversation', conversation, 'address', first.address, 'notice', first.notice);
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
CREATE FUNCTION @schema.moorline_claim_2(
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
        -- A message that was stored before the device left a conversation is dealt with there.
        FOREACH place IN ARRAY coalesce(state.earlier, '{}'::text[]) LOOP
            request := CASE
                WHEN place = device THEN message
                ELSE pg_catalog.concat(device, pg_catalog.chr(31), message) END;
            SELECT m.device_id INTO stored_in
                FROM @schema.conversation_messages m
                WHERE m.device_id = place AND m.message_id = request;
            EXIT WHEN FOUND;
        END LOOP;
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

-- Begin: makes the claims of a batch, each at one place of the arrays, and returns with each what its run reads first:
-- the head of the manager and that of the agent that holds the session, each with what its delta channels are made of.
-- There is one row for each head, or a single row with only the claim's answer. A head that the caller already knows (a
-- JSON object of heads by namespace) is left out. `people` are those whose messages they are, by the server's word.
CREATE FUNCTION @schema.moorline_begin_2(
    devices text[], messages text[], claims uuid[], texts text[], resumes text[], message_values text[],
    on_busy text[], known text[], people text[], joining text[], asking_worker text, default_ttl integer,
    lease_seconds double precision, waiter_seconds double precision, max_attempts integer, queue_max integer
) RETURNS TABLE (
    place integer, answer jsonb,
    checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[],
    delta_channels text[], history_depths integer[], history_ids text[], history_tasks text[], history_idxs integer[],
    history_paths text[], history_channels text[], history_versions text[], history_types text[],
    history_blobs bytea[]
)
LANGUAGE plpgsql VOLATILE
-- Every look-up goes by a key. Custom plans, five of them on each connection, would take longer than the work itself.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    device text;
    claimed jsonb;
    wanted jsonb;
BEGIN
    FOR own, device IN
        SELECT n.place::integer, n.device
        FROM pg_catalog.unnest(devices) WITH ORDINALITY AS n (device, place)
        ORDER BY n.device, n.place
    LOOP
        claimed := @schema.moorline_claim_2(
            device, messages[own], claims[own], asking_worker, texts[own], resumes[own]::jsonb,
            message_values[own]::jsonb, on_busy[own], default_ttl, lease_seconds, waiter_seconds, max_attempts,
            queue_max, people[own], joining[own]);
        device := coalesce(claimed->>'conversation'::text, device);
        wanted := (
            SELECT pg_catalog.jsonb_object_agg(n.ns, n.head)
            FROM pg_catalog.jsonb_each_text(claimed->'heads'::text) AS n (ns, head)
            WHERE n.ns IN ('', claimed->>'active_agent'::text)
                AND n.head IS DISTINCT FROM known[own]::jsonb->>n.ns);
        IF wanted IS NULL THEN
            place := own;
            answer := claimed;
            RETURN NEXT;
            CONTINUE;
        END IF;
        RETURN QUERY
            SELECT own, claimed, c.*, d.channels, h.*
            FROM pg_catalog.jsonb_each_text(wanted) AS n (ns, head)
            LEFT JOIN LATERAL @schema.moorline_checkpoint(device, n.ns, n.head) c ON true
            LEFT JOIN LATERAL (SELECT @schema.moorline_delta_channels(c.metadata) AS channels) d ON true
            LEFT JOIN LATERAL (
                SELECT pg_catalog.array_agg(w.depth), pg_catalog.array_agg(w.checkpoint_id),
                    pg_catalog.array_agg(w.task_id), pg_catalog.array_agg(w.idx), pg_catalog.array_agg(w.task_path),
                    pg_catalog.array_agg(w.channel), pg_catalog.array_agg(w.version), pg_catalog.array_agg(w.type),
                    pg_catalog.array_agg(w.blob)
                FROM @schema.moorline_history(device, n.ns, n.head, coalesce(d.channels, '{}'::text[])) w
            ) h ON d.channels IS NOT NULL;
    END LOOP;
END
$$;

-- Claim, as the code of version 4 calls it. It knows neither devices that lead elsewhere nor messages of other devices:
-- to that code, their conversations are locked. Version 6 drops it, with moorline_begin.
CREATE OR REPLACE FUNCTION @schema.moorline_claim(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_values jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, queue_max integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    answer jsonb;
BEGIN
    IF @schema.moorline_conversation(device) <> device THEN
        RETURN '{"outcome": "locked"}'::jsonb;
    END IF;
    answer := @schema.moorline_claim_2(
        device, message, claim, asking_worker, message_text, message_resume, message_values, on_busy, default_ttl,
        lease_seconds, waiter_seconds, max_attempts, queue_max, NULL::text, NULL::text);
    IF answer ? 'conversation'::text THEN
        RAISE EXCEPTION USING ERRCODE = 'ML005', MESSAGE = 'the conversation is shared';
    END IF;
    RETURN answer;
EXCEPTION WHEN SQLSTATE 'ML005' THEN  -- the claim is undone
    RETURN '{"outcome": "locked"}'::jsonb;
END
$$;

-- Is others': whether the conversation of the device's own key is somebody else's by now: others lead there, or were
-- left in it once, or it is that of a person and the device leads elsewhere.
CREATE FUNCTION @schema.moorline_is_others(device text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    s @schema.conversation_states;
BEGIN
    SELECT l.* INTO s FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN coalesce(s.given_away, false)
        OR EXISTS (SELECT 1 FROM @schema.conversation_states o WHERE o.leads_to = device)
        OR s.leads_to IS NOT NULL AND EXISTS (SELECT 1 FROM @schema.moorline_people p WHERE p.device_id = device);
END
$$;

-- Leaving: the conversation to which a device leads after it has left the one that it shares: its own, or a new one if
-- that is somebody else's by now. NULL: it shares none.
CREATE FUNCTION @schema.moorline_leaving(device text, default_ttl integer) RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    conversation text := @schema.moorline_conversation(device);
BEGIN
    IF conversation = device AND NOT EXISTS (
        SELECT 1 FROM @schema.conversation_states s WHERE s.leads_to = device)
    THEN
        RETURN NULL;
    ELSIF @schema.moorline_is_others(device) THEN
        RETURN @schema.moorline_new_conversation(default_ttl);
    END IF;
    RETURN device;
END
$$;

-- Devices: those that lead to the same conversation as the device, itself included; by when they joined it, its own
-- device first.
CREATE FUNCTION @schema.moorline_devices(device text) RETURNS TABLE (device_id text, linked_at timestamptz)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    conversation text := @schema.moorline_conversation(device);
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(conversation);
BEGIN
    RETURN QUERY
        SELECT s.device_id::text, NULL::timestamptz
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.leads_to IS NULL;
    RETURN QUERY
        SELECT s.device_id::text, s.linked_at
        FROM @schema.conversation_states s
        WHERE s.leads_to = conversation
        ORDER BY s.linked_at, s.device_id::text;
END
$$;

-- New code: the code by which another device can join the device's conversation for so many seconds. It replaces the
-- one before.
CREATE FUNCTION @schema.moorline_new_code(
    device text, hashed bytea, seconds double precision, default_ttl integer
) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    expiry timestamptz := pg_catalog.clock_timestamp() + seconds * interval '1 second';
BEGIN
    INSERT INTO @schema.conversation_states (device_id, session_ttl) VALUES (key, default_ttl)
        ON CONFLICT (device_id) DO NOTHING;
    INSERT INTO @schema.moorline_codes (device_id, code, expires_at) VALUES (device, hashed, expiry)
        ON CONFLICT (device_id) DO UPDATE SET code = excluded.code, expires_at = excluded.expires_at;
END
$$;

-- Redeem: uses a code up. The tries that failed are counted under each of `names`, for so many seconds after the first,
-- and none is made once one of them has as many as its bound. The answer's "outcome" is
--   redeemed   the code was right; "conversation" is where it leads.
--   same       it was right, but the device leads there already: it can still be used.
--   wrong      there is no such code, or it was used or has expired.
--   limited    too many tries have failed; none was made. "retry_after" says for how many seconds.
CREATE FUNCTION @schema.moorline_redeem(
    device text, hashed bytea, names bytea[], bounds integer[], seconds double precision
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
    expiry timestamptz := moment + seconds * interval '1 second';
    own bytea;
    bound integer;
    tries @schema.moorline_tries;
    blocked timestamptz;
    issued @schema.moorline_codes;
    conversation text;
BEGIN
    -- In order of their names, so that two tries never wait for each other.
    FOR own, bound IN SELECT n.name, n.bound FROM unnest(names, bounds) AS n (name, bound) ORDER BY n.name LOOP
        INSERT INTO @schema.moorline_tries (name, failed, until) VALUES (own, 0, expiry) ON CONFLICT DO NOTHING;
        SELECT t.* INTO STRICT tries FROM @schema.moorline_tries t WHERE t.name = own FOR UPDATE;
        IF tries.until <= moment THEN
            UPDATE @schema.moorline_tries t SET failed = 0, until = expiry WHERE t.name = own;
        ELSIF tries.failed >= bound THEN
            blocked := greatest(blocked, tries.until);
        END IF;
    END LOOP;
    IF blocked IS NOT NULL THEN
        RETURN pg_catalog.jsonb_build_object(
            'outcome', 'limited', 'retry_after', pg_catalog.date_part('epoch', blocked - moment));
    END IF;
    SELECT c.* INTO issued FROM @schema.moorline_codes c WHERE c.code = hashed FOR UPDATE;
    IF NOT FOUND OR issued.expires_at <= moment THEN
        UPDATE @schema.moorline_tries t SET failed = t.failed + 1 WHERE t.name = ANY (names);
        RETURN '{"outcome": "wrong"}'::jsonb;
    END IF;
    conversation := @schema.moorline_conversation(issued.device_id);
    IF conversation = @schema.moorline_conversation(device) THEN
        RETURN '{"outcome": "same"}'::jsonb;
    END IF;
    DELETE FROM @schema.moorline_codes c WHERE c.device_id = issued.device_id;
    RETURN pg_catalog.jsonb_build_object('outcome', 'redeemed', 'conversation', conversation);
END
$$;

-- Forget codes: removes codes and counts that have expired. Returns how many.
CREATE FUNCTION @schema.moorline_forget_codes() RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
    codes bigint;
    tries bigint;
BEGIN
    DELETE FROM @schema.moorline_codes c WHERE c.expires_at <= moment;
    GET DIAGNOSTICS codes = ROW_COUNT;
    DELETE FROM @schema.moorline_tries t WHERE t.until <= moment;
    GET DIAGNOSTICS tries = ROW_COUNT;
    RETURN codes + tries;
END
$$;

-- Withdraw a device's message, wherever it is stored; see moorline_withdraw.
CREATE FUNCTION @schema.moorline_withdraw_2(device text, message text, claim uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    place text;
    kept boolean := false;
BEGIN
    LOOP
        place := @schema.moorline_place(device, message);
        kept := @schema.moorline_withdraw(place, @schema.moorline_stored_id(device, place, message), claim) OR kept;
        -- It may have gone to another conversation meanwhile.
        EXIT WHEN place = @schema.moorline_place(device, message);
    END LOOP;
    RETURN kept;
END
$$;

-- Depart: removes what a shared conversation has of a device's address. What it said and what was done for it stays; its
-- messages that were not answered are removed, and a turn that answers one becomes stale.
CREATE FUNCTION @schema.moorline_depart(conversation text, device text) RETURNS void
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
    DELETE FROM @schema.conversation_messages m
        WHERE m.device_id = conversation AND m.address = device AND m.status NOT IN ('done', 'interrupted');
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

-- Erase conversation: removes what every component has of a conversation to which nobody leads any more. If the address
-- of its name leads elsewhere, that stays so. Returns whether there was anything.
CREATE FUNCTION @schema.moorline_erase_conversation(conversation text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(conversation);
    s @schema.conversation_states;
    known boolean;
BEGIN
    SELECT l.* INTO s FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key;
    known := @schema.moorline_erase_everywhere(conversation);
    IF s.linked_at IS NOT NULL THEN
        INSERT INTO @schema.conversation_states AS l (device_id, session_ttl, leads_to, linked_at, earlier)
            VALUES (key, s.session_ttl, s.leads_to, s.linked_at,
                    pg_catalog.array_remove(s.earlier, conversation))
            ON CONFLICT (device_id) DO UPDATE
            SET leads_to = excluded.leads_to, linked_at = excluded.linked_at, earlier = excluded.earlier;
    END IF;
    RETURN known;
END
$$;

-- Erase device: removes an address: what its own conversation has, in every component, its link, its code, and its name
-- from the conversations that it shared. Where it was the last, the conversation is removed as well, unless it is a
-- person's. If its own conversation is somebody else's by now, that stays theirs, and the address leads to a new one.
-- Returns whether there was anything.
CREATE FUNCTION @schema.moorline_erase_device(device text, default_ttl integer) RETURNS boolean
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
            given_away = true,
            notices = nullif(l.notices - device, '{}'::jsonb)
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN true;
END
$$;

-- Erase person: removes the conversation that the device leads to, in every component, with all devices that lead there:
-- each as moorline_erase_device removes it. Returns these devices, or none if there was nothing.
CREATE FUNCTION @schema.moorline_erase_person(device text, default_ttl integer) RETURNS text[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    conversation text;
    key @schema.conversation_states.device_id%TYPE;
    leads_on text;
    erased text[];
    again text[];
    known boolean;
    one text;
BEGIN
    -- A device may join or leave while a row is waited for. None can once all rows are held.
    LOOP
        conversation := @schema.moorline_conversation(device);
        PERFORM @schema.moorline_hold(conversation);
        erased := ARRAY(SELECT d.device_id FROM @schema.moorline_devices(device) d ORDER BY d.device_id);
        FOREACH one IN ARRAY erased LOOP
            PERFORM @schema.moorline_hold(one);
        END LOOP;
        again := ARRAY(SELECT d.device_id FROM @schema.moorline_devices(device) d ORDER BY d.device_id);
        EXIT WHEN again OPERATOR(pg_catalog.=) erased AND conversation = @schema.moorline_conversation(device);
    END LOOP;
    known := pg_catalog.cardinality(erased) > 0;
    FOREACH one IN ARRAY erased LOOP
        CONTINUE WHEN one = conversation;
        PERFORM @schema.moorline_erase_device(one, default_ttl);
    END LOOP;
    key := @schema.moorline_key(conversation);
    SELECT l.leads_to INTO leads_on FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key;
    IF leads_on IS NULL THEN
        known := @schema.moorline_erase_device(conversation, default_ttl) OR known;
    ELSE
        known := @schema.moorline_erase_conversation(conversation) OR known;
    END IF;
    RETURN CASE WHEN known THEN pg_catalog.array_append(pg_catalog.array_remove(erased, device), device)
        ELSE '{}'::text[] END;
END
$$;

-- Bounds on what is stored, and rows that cost less. The head of schema.sql explains the tables and columns.

-- A device's queue and merges are bounded, messages that never ran do not stay, and damage ends no statement late.

-- Queue full: whether as many messages of the device wait as may. Those whose caller has gone do not count: nobody
-- takes their replies, and they must not keep others out.
CREATE FUNCTION @schema.moorline_queue_full(device text, queue_max integer, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT pg_catalog.count(*) >= queue_max
        FROM (
            SELECT 1
            FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.queued AND m.waiter_until > moment
            LIMIT queue_max
        ) n);
END
$$;

-- Claim: claims the device for its next turn, or says why not. It never waits for the device's row. Idempotent in
-- claim: called again with the same claim it returns the same turn. A message that has to wait keeps its place in the
-- queue for waiter_seconds; if nothing is before it, it runs at once without queueing. Without a message it only looks
-- for what a crashed process left: its turn, or a message that waited there.
--
-- The answer's "outcome" is
--   claimed       the turn to run now: its fence, number, messages, lock and heads, its journal if it was run before,
--                 and the effects of the device's unfinished messages (null if none). Its messages are the caller's own
--                 (with those merged into it), or those of a turn that a crashed process left and that has to be
--                 finished first.
--   replayed      the message was answered before: the stored reply.
--   waiting       the message is in the queue, or is being answered right now: ask again.
--   busy          another turn is running and the caller does not wait; nothing was stored.
--   full          the message would have to wait, and queue_max messages of the device wait already; nothing was stored.
--   stale_resume  the message answers an interrupt that no longer waits for an answer; nothing was stored, and if the
--                 message was in the queue, it has been removed.
--   dead          the message was set aside after max_attempts.
--   idle          there is nothing that a crashed process left.
--   locked        another transaction has the device's row: nothing was done, ask again.
CREATE FUNCTION @schema.moorline_claim_2(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_values jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, queue_max integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    policy record;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    first @schema.conversation_messages;
    chosen text[];
    messages jsonb;
    unawaited boolean;
    busy boolean;
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
    moment := pg_catalog.clock_timestamp();
    lease := moment + lease_seconds * interval '1 second';
    waiter := moment + waiter_seconds * interval '1 second';

    SELECT m.* INTO own FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
    IF own.status IN ('done', 'interrupted') THEN
        RETURN (
            SELECT pg_catalog.jsonb_build_object(
                'outcome', 'replayed', 'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply,
                'handoffs', t.handoffs, 'usage', t.usage, 'interrupt', t.interrupt,
                'other_text', own.text <> message_text)
            FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = own.turn_no);
    ELSIF own.status = 'dead' THEN
        RETURN pg_catalog.jsonb_build_object('outcome', 'dead', 'error', own.error);
    ELSIF state.claim_id = claim THEN
        -- The answer to this claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = lease
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        RETURN @schema.moorline_claimed(device, state, moment);
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
        IF state.claim_id IS NULL AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued)
        THEN
            INSERT INTO @schema.conversation_messages AS m
                (device_id, message_id, arrival, text, resume, values, status, attempts, claim_id, merge)
                VALUES (device, message, state.arrivals, message_text, message_resume, message_values, 'running', 1,
                        claim, policy.merges)
                RETURNING m.* INTO first;
            chosen := ARRAY[message];
            messages := pg_catalog.jsonb_build_array(
                pg_catalog.jsonb_build_object('id', message, 'text', message_text));
        ELSIF @schema.moorline_queue_full(device, queue_max, moment) THEN
            RETURN pg_catalog.jsonb_build_object('outcome', 'full', 'retry_after',
                @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
        ELSE
            INSERT INTO @schema.conversation_messages
                (device_id, message_id, arrival, text, resume, values, status, waiter_until, worker, merge)
                VALUES (device, message, state.arrivals, message_text, message_resume, message_values, 'waiting',
                        waiter, asking_worker, policy.merges);
        END IF;
    ELSIF own.status = 'waiting' THEN
        IF unawaited AND @schema.moorline_queue_full(device, queue_max, moment) THEN
            RETURN pg_catalog.jsonb_build_object('outcome', 'full', 'retry_after',
                @schema.moorline_retry_after(device, state.claimed_at, state.lease_until, moment));
        END IF;
        UPDATE @schema.conversation_messages m
            SET waiter_until = waiter, worker = asking_worker
            WHERE m.device_id = device AND m.message_id = message;
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
        -- in a row lets others go first. Messages that failed too often are set aside here, and those that answer a
        -- closed interrupt are deleted.
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
                    ORDER BY state.worker_turns >= 8 AND m.worker IS NOT DISTINCT FROM state.last_worker, m.arrival
                    LIMIT 1;
            END IF;
            IF NOT FOUND THEN
                RETURN '{"outcome": "idle"}'::jsonb;
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
                EXIT;
            END IF;
        END LOOP;

        -- Messages that ran together before run together again, and with no others; they share a claim_id. Otherwise a
        -- message that merges is answered together with those after it, up to the first that does not merge, answers an
        -- interrupt, ran before, has other values, or would make the turn too large: of more than 32 messages, or more
        -- than 32 KiB of text.
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
                    OR following.claim_id IS NOT NULL OR following.values <> first.values;
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
        UPDATE @schema.conversation_messages m
            SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL
            WHERE m.device_id = device AND m.message_id = ANY (chosen) AND m.status = first.status;
    END IF;

    -- The fence only orders the device's claims. Because it follows the clock, it keeps rising after an erasure;
    -- because it exceeds the last one, it rises even if the clock was set back.
    next_fence := greatest(
        state.fence + 1, (pg_catalog.date_part('epoch', moment) * 1000000::double precision)::bigint);
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            claimed_at = moment,
            lease_until = lease,
            fence = next_fence,
            open_messages = chosen,
            arrivals = state.arrivals,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id OPERATOR(pg_catalog.=) key
        RETURNING s.* INTO STRICT state;
    IF messages IS NULL THEN
        RETURN @schema.moorline_claimed(device, state, moment);
    END IF;
    RETURN @schema.moorline_answer(device, state, first, messages, '[]'::jsonb, moment);
END
$$;

-- The claim as code of version 1 calls it. Dropped by the first file whose oldest code is version 2.
CREATE OR REPLACE FUNCTION @schema.moorline_claim(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_values jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN @schema.moorline_claim_2(
        device, message, claim, asking_worker, message_text, message_resume, message_values, on_busy, default_ttl,
        lease_seconds, waiter_seconds, max_attempts, 200);
END
$$;

-- Begin: makes the claims of a batch, each at one place of the arrays, and returns with each what its run reads first:
-- the head of the manager and that of the agent that holds the session, each with what its delta channels are made of.
-- There is one row for each head, or a single row with only the claim's answer. A head that the caller already knows (a
-- JSON object of heads by namespace) is left out.
CREATE FUNCTION @schema.moorline_begin_2(
    devices text[], messages text[], claims uuid[], texts text[], resumes text[], message_values text[],
    on_busy text[], known text[], asking_worker text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, queue_max integer
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
            queue_max);
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

-- Begin as code of version 1 calls it. Dropped by the first file whose oldest code is version 2.
CREATE OR REPLACE FUNCTION @schema.moorline_begin(
    devices text[], messages text[], claims uuid[], texts text[], resumes text[], message_values text[],
    on_busy text[], known text[], asking_worker text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
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
AS $$
BEGIN
    RETURN QUERY
        SELECT b.*
        FROM @schema.moorline_begin_2(
            devices, messages, claims, texts, resumes, message_values, on_busy, known, asking_worker, default_ttl,
            lease_seconds, waiter_seconds, max_attempts, 200) b;
END
$$;

-- Ancestors: the checkpoints whose writes make up the value of a delta channel at a checkpoint, nearest first, up to
-- the first that has the channel's value stored. Each step looks its parent up by key, however few checkpoints are
-- stored: OFFSET 0 keeps the planner from reading all of them at each step. A line of parents that leads back into
-- itself is refused (ML004). It is noticed by a mark that is put down at each power of two steps (Brent).
CREATE OR REPLACE FUNCTION @schema.moorline_ancestors(device text, ns text, id text, delta_channel text) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    ids text[];
    circular boolean;
BEGIN
    WITH RECURSIVE walk AS (
        SELECT 0 AS depth, c.checkpoint_id, c.parent_checkpoint_id, false AS whole, c.checkpoint_id AS mark,
            false AS circular
        FROM @schema.conversation_checkpoints c
        WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = id
        UNION ALL
        SELECT w.depth + 1, a.checkpoint_id, a.parent_checkpoint_id, EXISTS (
                SELECT 1
                FROM @schema.conversation_values v
                WHERE v.device_id = device AND v.checkpoint_ns = ns
                    AND v.channel = delta_channel AND v.version = a.versions->>delta_channel),
            CASE WHEN w.depth & (w.depth + 1) = 0 THEN a.checkpoint_id ELSE w.mark END,
            a.checkpoint_id = w.mark
        FROM walk w
        CROSS JOIN LATERAL (
            SELECT p.checkpoint_id, p.parent_checkpoint_id, p.versions
            FROM @schema.conversation_checkpoints p
            WHERE p.device_id = device AND p.checkpoint_ns = ns AND p.checkpoint_id = w.parent_checkpoint_id
            OFFSET 0
        ) a
        WHERE NOT w.whole AND NOT w.circular
    )
    SELECT pg_catalog.array_agg(w.checkpoint_id ORDER BY w.depth) FILTER (WHERE w.depth > 0),
            pg_catalog.bool_or(w.circular)
        INTO ids, circular
        FROM walk w;
    IF circular THEN
        RAISE EXCEPTION USING ERRCODE = 'ML004', MESSAGE = 'a checkpoint is its own ancestor';
    END IF;
    RETURN ids;
END
$$;

-- Withdraw: for a message whose caller has gone before its turn began. It gives up its place in the queue; one
-- that never ran is deleted. If the claim was won but its answer was lost, the turn is released and does not count as an
-- attempt. Returns whether an earlier attempt at the message has effects that stand.
CREATE OR REPLACE FUNCTION @schema.moorline_withdraw(device text, message text, claim uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    together text[];
    still boolean;
    moment timestamptz;
BEGIN
    SELECT s.* INTO state
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id = claim
        FOR UPDATE;
    IF FOUND AND message = ANY (state.open_messages) THEN
        moment := pg_catalog.clock_timestamp();
        UPDATE @schema.conversation_messages m
            SET status = 'waiting', attempts = m.attempts - 1, waiter_until = moment
            WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running';
        still := @schema.moorline_unfinished(device) IS NOT NULL;
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, claimed_at = NULL, lease_until = NULL, open_messages = NULL, unfinished = still
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
    ELSIF FOUND THEN
        PERFORM @schema.moorline_abandon(device, claim, true);
    END IF;
    UPDATE @schema.conversation_messages m
        SET waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = message AND m.status = 'waiting'
        RETURNING m.* INTO own;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF own.attempts = 0 AND own.error IS NULL THEN
        DELETE FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
        RETURN false;
    END IF;
    -- Effects belong to the first of the messages that were answered together.
    SELECT pg_catalog.array_agg(m.message_id) INTO together
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.queued AND (m.message_id = message OR m.claim_id = own.claim_id);
    RETURN @schema.moorline_effects_kept(device, together);
END
$$;

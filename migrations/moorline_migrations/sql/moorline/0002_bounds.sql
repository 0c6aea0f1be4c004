-- Bounds, questions and locks. The head of schema.sql explains the tables and columns.

-- Code of version 1 would leave out the calls behind a question, and the tools might do them twice.
-- oldest code: 2

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
--   other_spelling  the column device_id takes another device ID for the same; nothing was stored.
--   full          the message would have to wait, and queue_max messages of the device wait already; nothing was stored.
--   stale_resume  the message answers an interrupt that no longer waits for an answer; nothing was stored, and if the
--                 message was in the queue, it has been removed.
--   dead          the message was set aside after max_attempts.
--   idle          there is nothing that a crashed process left.
--   locked        another transaction has the device's row: nothing was done, ask again.
DROP FUNCTION @schema.moorline_claim(
    text, text, uuid, text, text, jsonb, jsonb, text, integer, double precision, double precision, integer);
CREATE FUNCTION @schema.moorline_claim(
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
    IF state.device_id::text COLLATE pg_catalog."C" <> device THEN  -- a collation may take both for one
        RETURN '{"outcome": "other_spelling"}'::jsonb;
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

-- Begin: makes the claims of a batch, each at one place of the arrays, and returns with each what its run reads first:
-- the head of the manager and that of the agent that holds the session, each with what its delta channels are made of.
-- There is one row for each head, or a single row with only the claim's answer. A head that the caller already knows (a
-- JSON object of heads by namespace) is left out.
DROP FUNCTION @schema.moorline_begin(
    text[], text[], uuid[], text[], text[], text[], text[], text[], text, integer, double precision, double precision,
    integer);
CREATE FUNCTION @schema.moorline_begin(
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
        claimed := @schema.moorline_claim(
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

-- Questions, what failed attempts cost, and locks that others set while a turn is open.
ALTER TABLE @schema.conversation_messages ADD COLUMN usage jsonb;
ALTER TABLE @schema.conversation_turns ADD COLUMN run jsonb;

-- Answer: what a won claim is answered with.
CREATE OR REPLACE FUNCTION @schema.moorline_answer(
    device text, s @schema.conversation_states, first @schema.conversation_messages, messages jsonb, journal jsonb,
    moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    unfinished jsonb;
    run jsonb;
BEGIN
    IF s.unfinished THEN
        unfinished := @schema.moorline_unfinished(device);
    END IF;
    IF first.resume IS NOT NULL THEN
        run := (
            SELECT t.run FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = s.last_turn_no);
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'outcome', 'claimed',
        'fence', s.fence,
        'turn_no', s.last_turn_no + 1,
        'now', moment,
        'messages', messages,
        'resume', first.resume,
        'values', first.values,
        'attempts', first.attempts,
        'journal', journal,
        'unfinished', unfinished,
        'run', run,
        'usage', first.usage,
        'active_agent', CASE
            WHEN s.active_agent IS NOT NULL
                AND moment - greatest(s.last_active_at, s.locked_at)
                    < s.session_ttl::double precision * interval '1 second'
            THEN s.active_agent END,
        'heads', s.heads);
END
$$;

-- Commit: commits a batch of turns, each at one place of the arrays. Outcomes: committed, lock_kept (committed, except
-- that somebody else set or cleared the lock meanwhile), stale (the device has another claim or none, and nothing was
-- written) or locked. Idempotent: a turn that was committed before, and whose acknowledgement was lost, answers
-- committed again. Checkpoints, values and writes come as one array for each column; the first array of each holds the
-- place of the turn. Rows with the same keys may have been left by the turn before, which stopped to ask.
CREATE OR REPLACE FUNCTION @schema.moorline_commit(
    devices text[], claims uuid[], fences bigint[], turns text[], keep_turns integer,
    c_place integer[], c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[],
    c_versions text[],
    v_place integer[], v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_place integer[], w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[],
    w_type text[], w_blob bytea[]
) RETURNS TABLE (place integer, outcome text)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    device text;
    claim uuid;
    fence_of_turn bigint;
    key @schema.conversation_states.device_id%TYPE;
    state @schema.conversation_states;
    turn record;
    number bigint;
    still boolean;
    kept boolean;
    dropped text[];
    numbers bigint[] := pg_catalog.array_fill(NULL::bigint, ARRAY[pg_catalog.cardinality(devices)]);
    moment timestamptz;
BEGIN
    FOR own, device IN
        SELECT n.place::integer, n.device
        FROM pg_catalog.unnest(devices) WITH ORDINALITY AS n (device, place)
        ORDER BY n.device, n.place
    LOOP
        key := device;
        claim := claims[own];
        place := own;
        SELECT t.* INTO STRICT turn
            FROM pg_catalog.jsonb_to_record(turns[own]::jsonb) AS t (
                turn_no bigint, status text, agent text, reply text, handoffs text[], usage jsonb, interrupt jsonb,
                attempts integer, started_at timestamptz, active_agent text, lock_taken boolean, session_ttl integer,
                heads jsonb, messages text[], journal_of text, holder text, run jsonb);
        SELECT s.* INTO state
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            outcome := CASE
                WHEN EXISTS (
                    SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key)
                THEN 'locked'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        ELSIF state.claim_id IS DISTINCT FROM claim THEN
            outcome := CASE
                WHEN EXISTS (
                    SELECT 1 FROM @schema.conversation_turns t
                    WHERE t.device_id = device AND t.turn_no = turn.turn_no AND t.claim_id = claim)
                THEN 'committed'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- Code of before this outcome sends no holder and is not told.
        kept := coalesce(
            turn.holder IS NOT NULL AND state.active_agent::text IS DISTINCT FROM turn.holder
                OR state.active_agent IS NOT NULL
                    AND greatest(state.last_active_at, state.locked_at) > state.claimed_at,
            false);
        outcome := CASE WHEN kept AND turns[own]::jsonb ? 'holder'::text THEN 'lock_kept' ELSE 'committed' END;
        RETURN NEXT;
        moment := pg_catalog.clock_timestamp();
        number := state.last_turn_no + 1;
        numbers[own] := number;
        fence_of_turn := fences[own];
        UPDATE @schema.conversation_messages m
            SET status = turn.status, turn_no = number, claim_id = NULL, worker = NULL, values = '{}', error = NULL,
                usage = NULL
            WHERE m.device_id = device AND m.message_id = ANY (turn.messages)
                AND m.claim_id = claim AND m.status = 'running';
        still := state.unfinished AND @schema.moorline_unfinished(device) IS NOT NULL;
        UPDATE @schema.conversation_states s
            SET active_agent = CASE WHEN kept THEN s.active_agent::text ELSE turn.active_agent END,
                locked_at = CASE
                    WHEN kept THEN s.locked_at
                    WHEN turn.active_agent IS NULL THEN NULL
                    WHEN turn.lock_taken THEN moment
                    ELSE s.locked_at END,
                session_ttl = CASE WHEN kept THEN s.session_ttl ELSE coalesce(turn.session_ttl, s.session_ttl) END,
                last_active_at = moment,
                last_turn_no = number,
                heads = turn.heads,
                claim_id = NULL,
                claimed_at = NULL,
                lease_until = NULL,
                open_messages = NULL,
                unfinished = still
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        INSERT INTO @schema.conversation_turns
            (device_id, turn_no, claim_id, fence, agent, reply, interrupt, handoffs, usage, status, attempts,
             started_at, committed_at, run)
            VALUES (
                device, number, claim, fence_of_turn, turn.agent, turn.reply, turn.interrupt, turn.handoffs,
                turn.usage, turn.status, turn.attempts, turn.started_at, moment, turn.run);
        IF turn.journal_of IS NOT NULL THEN
            -- Effects stay on record; the model answers that led to them are no longer needed.
            DELETE FROM @schema.conversation_effects e
                WHERE e.device_id = device AND e.message_id = turn.journal_of AND e.kind = 'answer';
        END IF;
        -- Namespaces that no run will enter again: they were kept for an interrupt, which is over.
        SELECT pg_catalog.array_agg(n.ns) INTO dropped
            FROM pg_catalog.jsonb_object_keys(state.heads) AS n (ns)
            WHERE NOT turn.heads ? n.ns;
        IF dropped IS NOT NULL THEN
            DELETE FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
            DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
            DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
        END IF;
    END LOOP;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT devices[c.place], c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb,
            numbers[c.place], fences[c.place]
        FROM unnest(c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (place, ns, id, parent, type, body, metadata, versions)
        WHERE numbers[c.place] IS NOT NULL
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO UPDATE
        SET parent_checkpoint_id = excluded.parent_checkpoint_id,
            type = excluded.type,
            checkpoint = excluded.checkpoint,
            metadata = excluded.metadata,
            versions = excluded.versions,
            turn_no = excluded.turn_no,
            fence = excluded.fence;
    INSERT INTO @schema.conversation_values
        (device_id, checkpoint_ns, channel, version, type, blob, fence)
        SELECT devices[v.place], v.ns, v.channel, v.version, v.type, v.blob, fences[v.place]
        FROM unnest(v_place, v_ns, v_channel, v_version, v_type, v_blob) AS v (place, ns, channel, version, type, blob)
        WHERE numbers[v.place] IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob, fence)
        SELECT devices[w.place], w.ns, w.id, w.task, w.idx, w.path, w.channel, w.type, w.blob, fences[w.place]
        FROM unnest(w_place, w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob)
            AS w (place, ns, id, task, idx, path, channel, type, blob)
        WHERE numbers[w.place] IS NOT NULL
        -- A task that was answered and asks again writes its question over the first one.
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
        SET task_path = excluded.task_path,
            channel = excluded.channel,
            type = excluded.type,
            blob = excluded.blob,
            fence = excluded.fence;

    -- Only now and then, so that it costs each turn little.
    FOR own IN 1..pg_catalog.cardinality(numbers) LOOP
        IF numbers[own] % keep_turns::bigint = 0 THEN
            PERFORM @schema.moorline_prune(
                devices[own], turns[own]::jsonb->'heads'::text, numbers[own] - keep_turns);
        END IF;
    END LOOP;
END
$$;

-- Release: ends a turn that failed, so that the device goes on at once. Its messages wait for their next delivery;
-- those whose caller was not told of the failure (all but `notified`) can also be recovered. After max_attempts they
-- are set aside. A failure that is not the messages' fault (give_back) does not count as an attempt. With `forget` the
-- messages are deleted, as if they had never come. Returns whether the turn has effects that stand. `first` is the
-- first of its messages, to which effects belong, and what its failed attempts cost (spent; null: as before).
DROP FUNCTION @schema.moorline_release(text, uuid, text, text, boolean, boolean, text, integer);
CREATE FUNCTION @schema.moorline_release(
    device text, claim uuid, first text, notified text, give_back boolean, forget boolean, failure text,
    max_attempts integer, spent jsonb
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    returned integer := CASE WHEN give_back THEN 1 ELSE 0 END;
    still boolean;
    moment timestamptz;
BEGIN
    SELECT s.* INTO state
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id = claim
        FOR UPDATE;
    IF FOUND THEN
        moment := pg_catalog.clock_timestamp();
        IF forget THEN
            DELETE FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running';
        ELSE
            UPDATE @schema.conversation_messages m
                SET attempts = m.attempts - returned,
                    status = CASE WHEN m.attempts - returned >= max_attempts THEN 'dead' ELSE 'waiting' END,
                    waiter_until = CASE WHEN m.message_id IS DISTINCT FROM notified THEN moment END,
                    error = failure,
                    usage = CASE WHEN m.message_id = first THEN coalesce(spent, m.usage) ELSE m.usage END
                WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running';
        END IF;
        still := @schema.moorline_unfinished(device) IS NOT NULL;
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, claimed_at = NULL, lease_until = NULL, open_messages = NULL, unfinished = still
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
    END IF;
    RETURN @schema.moorline_effects_kept(device, ARRAY[first]);
END
$$;

-- Pending: the device's question, if it waits for an answer.
CREATE FUNCTION @schema.moorline_pending(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    RETURN (
        SELECT t.interrupt
        FROM @schema.conversation_states s
        JOIN @schema.conversation_turns t ON t.device_id = device AND t.turn_no = s.last_turn_no
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND t.status = 'interrupted');
END
$$;

-- Cancel: closes the device's question, so that nothing can answer it any more. Returns whether one was waiting; one
-- that is being answered right now is not.
CREATE FUNCTION @schema.moorline_cancel(device text) RETURNS boolean
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
        WHERE m.device_id = device AND m.message_id = ANY (s.open_messages) AND m.status = 'running'
            AND m.resume IS NOT NULL)
    THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_turns t
        SET status = 'done'
        WHERE t.device_id = device AND t.turn_no = s.last_turn_no AND t.status = 'interrupted';
    RETURN FOUND;
END
$$;

-- Set lock: takes or renews the lock. locked_at stays while the same agent's lock is live. ttl is the requested time to
-- live, default_ttl that of a device that has none yet. The moment comes after the row is locked, so that it is later
-- than the claim of an open turn.
CREATE FUNCTION @schema.moorline_set_lock(device text, agent text, ttl integer, default_ttl integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    s @schema.conversation_states;
    moment timestamptz;
    since timestamptz;
BEGIN
    INSERT INTO @schema.conversation_states AS n (device_id, session_ttl)
        VALUES (key, coalesce(ttl, default_ttl))
        ON CONFLICT (device_id) DO NOTHING;
    SELECT l.* INTO STRICT s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    since := CASE
        WHEN s.active_agent::text = agent AND s.active_agent IS NOT NULL
            AND moment - greatest(s.last_active_at, s.locked_at)
                < s.session_ttl::double precision * interval '1 second'
        THEN coalesce(s.locked_at, moment)
        ELSE moment END;
    UPDATE @schema.conversation_states l
        SET active_agent = agent,
            session_ttl = coalesce(ttl, l.session_ttl),
            locked_at = since,
            last_active_at = moment
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
END
$$;

-- Clear expired locks: drops up to `most` expired locks, except those whose rows are locked and those of devices whose
-- turn is open: that turn will renew the lock. Returns how many.
CREATE OR REPLACE FUNCTION @schema.moorline_clear_expired_locks(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE;
    moment timestamptz := pg_catalog.clock_timestamp();
    cleared integer := 0;
BEGIN
    FOR key IN
        SELECT s.device_id
        FROM @schema.conversation_states s
        WHERE s.device_id IS NOT NULL AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
            AND moment - greatest(s.last_active_at, s.locked_at)
                >= s.session_ttl::double precision * interval '1 second'
    LOOP
        PERFORM 1
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
                AND moment - greatest(s.last_active_at, s.locked_at)
                    >= s.session_ttl::double precision * interval '1 second'
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE @schema.conversation_states s
            SET active_agent = NULL, locked_at = NULL
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        cleared := cleared + 1;
        EXIT WHEN cleared >= most;
    END LOOP;
    RETURN cleared;
END
$$;

-- Hold: locks the device's row until the transaction ends, so that removals run one after another and never during a
-- commit or a tool's transaction. If there is no row, its checkpoints are locked instead: those that are there once the
-- locks are given, because a removal before this one may have left only newer ones.
CREATE OR REPLACE FUNCTION @schema.moorline_hold(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    PERFORM 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key FOR UPDATE;
    WHILE NOT FOUND LOOP
        EXIT WHEN NOT EXISTS (SELECT 1 FROM @schema.conversation_checkpoints c WHERE c.device_id = device);
        PERFORM 1
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device
            ORDER BY c.checkpoint_ns, c.checkpoint_id
            FOR UPDATE;
    END LOOP;
END
$$;

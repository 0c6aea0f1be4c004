-- Files: what came with messages, kept once in each conversation. The head of schema.sql explains the columns.

CREATE TABLE @schema.conversation_files (
    device_id text,
    hash      text,
    type      text NOT NULL,
    size      integer NOT NULL,
    data      bytea NOT NULL,
    stored_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, hash)
);

-- Most of them are compressed already.
ALTER TABLE @schema.conversation_files ALTER COLUMN data SET STORAGE EXTERNAL;

-- Keep file: stores a file in a conversation; one that is there already counts as the latest. Then the files that came
-- longest ago go, until all others have at most `most` bytes.
CREATE FUNCTION @schema.moorline_keep_file(
    conversation text, file_hash text, file_type text, content bytea, most bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
    bytes integer := pg_catalog.octet_length(content);
    outdated text[];
BEGIN
    INSERT INTO @schema.conversation_files AS f (device_id, hash, type, size, data, stored_at)
        VALUES (conversation, file_hash, file_type, bytes, content, moment)
        ON CONFLICT (device_id, hash) DO UPDATE SET stored_at = excluded.stored_at;
    SELECT pg_catalog.array_agg(o.hash) INTO outdated
        FROM (
            SELECT n.hash, pg_catalog.sum(n.size) OVER (ORDER BY n.stored_at DESC, n.hash) AS kept
            FROM @schema.conversation_files n
            WHERE n.device_id = conversation
        ) o
        WHERE o.kept > most;
    IF outdated IS NOT NULL THEN
        DELETE FROM @schema.conversation_files f WHERE f.device_id = conversation AND f.hash = ANY (outdated);
    END IF;
END
$$;

-- Join: carries out a row of the queue with `joins`: its device leads to that conversation from now on, its messages
-- that wait and never ran go along in their order with their files, and the other devices there are told. `state` is the row of the
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
            INSERT INTO @schema.conversation_files (device_id, hash, type, size, data, stored_at)
                SELECT request.joins, f.hash, f.type, f.size, f.data, f.stored_at
                FROM @schema.conversation_files f
                WHERE f.device_id = here AND pg_catalog.strpos(said, f.hash) > 0
                ON CONFLICT (device_id, hash) DO NOTHING;
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

-- Copy: copies a conversation's checkpoints and files to another device ID, whose heads are then the same. What the target
-- already has under the same keys stays.
CREATE OR REPLACE FUNCTION @schema.moorline_copy(source text, target text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    source_key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(source);
    target_key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(target);
    copied jsonb;
BEGIN
    INSERT INTO @schema.conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
        SELECT target, v.checkpoint_ns, v.channel, v.version, v.type, v.blob
        FROM @schema.conversation_values v
        WHERE v.device_id = source
        ON CONFLICT (device_id, checkpoint_ns, channel, version) DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
        SELECT target, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, w.type, w.blob
        FROM @schema.conversation_writes w
        WHERE w.device_id = source
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;
    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions)
        SELECT target, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
            c.versions
        FROM @schema.conversation_checkpoints c
        WHERE c.device_id = source
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO NOTHING;
    INSERT INTO @schema.conversation_files (device_id, hash, type, size, data, stored_at)
        SELECT target, f.hash, f.type, f.size, f.data, f.stored_at
        FROM @schema.conversation_files f
        WHERE f.device_id = source
        ON CONFLICT (device_id, hash) DO NOTHING;
    SELECT s.heads INTO copied
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) source_key AND s.heads <> '{}';
    IF FOUND AND target_key IS NOT NULL THEN
        INSERT INTO @schema.conversation_states AS s (device_id, heads) VALUES (target_key, copied)
            ON CONFLICT (device_id) DO UPDATE SET heads = s.heads || excluded.heads;
    END IF;
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
    DELETE FROM @schema.conversation_facts f WHERE f.device_id = device;
    DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
    DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
    DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
    DELETE FROM @schema.conversation_files f WHERE f.device_id = device;
    BEGIN
        DELETE FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key;
        -- Deferred references are checked now rather than at the end of the transaction.
        SET CONSTRAINTS ALL IMMEDIATE;
    EXCEPTION WHEN foreign_key_violation THEN
        NULL;
    END;
END
$$;

-- Export: what these tables have of a device that a person may want to see.
CREATE OR REPLACE FUNCTION @schema.moorline_export(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    files_begin text := pg_catalog.concat(pg_catalog.chr(26), '[');
BEGIN
    RETURN pg_catalog.jsonb_build_object(
        'session', (
            SELECT pg_catalog.jsonb_build_object(
                'active_agent', s.active_agent, 'locked_at', s.locked_at, 'last_active_at', s.last_active_at)
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key),
        'devices', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object('device_id', s.device_id::text, 'linked_at', s.linked_at)
                    ORDER BY s.linked_at),
                '[]'::jsonb)
            FROM @schema.conversation_states s
            WHERE s.leads_to = device),
        'person_id', (SELECT p.person_id FROM @schema.moorline_people p WHERE p.device_id = device),
        'messages', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'message_id', @schema.moorline_given_id(m.address, m.message_id), 'device_id', m.address,
                        'turn_no', m.turn_no, 'text', pg_catalog.split_part(m.text, files_begin, 1),
                        'files', CASE WHEN pg_catalog.strpos(m.text, files_begin) > 0 THEN
                            pg_catalog.substr(m.text, pg_catalog.strpos(m.text, files_begin) + 1)::jsonb END, 'resume', m.resume, 'values', m.values,
                        'status', m.status, 'received_at', m.received_at)
                    ORDER BY m.arrival),
                '[]'::jsonb)
            FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.joins IS NULL),
        'turns', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply, 'interrupt', t.interrupt,
                        'handoffs', t.handoffs, 'changes', t.changes, 'started_at', t.started_at,
                        'committed_at', t.committed_at, 'rewound_at', t.rewound_at)
                    ORDER BY t.turn_no),
                '[]'::jsonb)
            FROM @schema.conversation_turns t
            WHERE t.device_id = device),
        'sessions', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'agent', n.agent, 'locked_at', n.locked_at, 'ended_at', n.ended_at, 'why', n.why)
                    ORDER BY n.ended_at, n.position),
                '[]'::jsonb)
            FROM @schema.conversation_sessions n
            WHERE n.device_id = device),
        'files', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'hash', f.hash, 'type', f.type, 'size', f.size, 'stored_at', f.stored_at,
                        'data', pg_catalog.encode(f.data, 'base64'::text))
                    ORDER BY f.stored_at, f.hash),
                '[]'::jsonb)
            FROM @schema.conversation_files f
            WHERE f.device_id = device),
        'effects', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'message_id', @schema.moorline_given_id(m.address, e.message_id), 'agent', e.agent, 'name', e.name, 'intent', e.intent,
                        'result', e.result, 'recorded_at', e.recorded_at)
                    ORDER BY e.turn_no, e.position),
                '[]'::jsonb)
            FROM @schema.conversation_effects e
            LEFT JOIN @schema.conversation_messages m
                ON m.device_id = device AND m.message_id = e.message_id
            WHERE e.device_id = device AND e.kind <> 'answer'),
        'facts', (
            SELECT coalesce(
                pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_object(
                        'namespace', f.namespace, 'key', f.key, 'value', f.value, 'created_at', f.created_at,
                        'updated_at', f.updated_at, 'expires_at', f.expires_at)
                    ORDER BY f.namespace, f.key),
                '[]'::jsonb)
            FROM @schema.conversation_facts f
            WHERE f.device_id = device));
END
$$;

-- Known: whether anything of a device is in these tables.
CREATE OR REPLACE FUNCTION @schema.moorline_known(device text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    RETURN EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key)
        OR EXISTS (SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_turns t WHERE t.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_checkpoints c WHERE c.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_writes w WHERE w.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_sessions n WHERE n.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_files f WHERE f.device_id = device)
        OR EXISTS (SELECT 1 FROM @schema.conversation_facts f WHERE f.device_id = device);
END
$$;

-- Retire: removes what a device has that is older than so many days, at most `most` turns in one call, and returns the
-- number of rows removed. Call it again until it removes fewer than `most`.
--
-- Nothing is removed while a turn is open or another transaction has the device's row. A message is removed with its
-- turn; one without a turn when it is old enough and no caller waits with it. Effects are removed with their message at
-- the latest. As long as the device is in use, its agents keep what their heads are made of. A device that has been out
-- of use for that long keeps only its lock and its counters, unless a question of the agent that holds the session can
-- still be answered.
CREATE OR REPLACE FUNCTION @schema.moorline_retire(device text, days double precision, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    s @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    oldest timestamptz := moment - days * interval '1 day';
    oldest_day date := pg_catalog.timezone('UTC', oldest)::date;
    used_at timestamptz;
    asks boolean;
    last_turn bigint;
    removed bigint;
    gone bigint;
BEGIN
    SELECT l.* INTO s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.claim_id IS NULL
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    removed := @schema.moorline_stored(device);
    used_at := greatest(s.last_active_at, s.locked_at);
    asks := EXISTS (
            SELECT 1 FROM @schema.conversation_turns t
            WHERE t.device_id = device AND t.turn_no = s.last_turn_no AND t.status = 'interrupted')
        AND s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');

    -- Turn numbers follow the order of the commits.
    SELECT pg_catalog.max(t.turn_no) INTO last_turn
        FROM (
            SELECT n.turn_no, n.committed_at
            FROM @schema.conversation_turns n
            WHERE n.device_id = device
            ORDER BY n.turn_no
            LIMIT most
        ) t
        WHERE t.committed_at < oldest AND NOT (asks AND t.turn_no = s.last_turn_no);
    DELETE FROM @schema.conversation_messages m
        WHERE m.device_id = device
            AND (m.status IN ('done', 'interrupted') AND m.turn_no <= last_turn
                OR (m.status = 'dead' OR m.queued AND m.waiter_until IS NULL) AND m.received_at < oldest);
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

    DELETE FROM @schema.conversation_files f
        WHERE f.device_id = device AND f.stored_at < oldest AND NOT asks AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued);
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device AND n.ended_at < oldest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;
    -- A roll-up that runs would bring them back.
    PERFORM 1 FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device AND d.day < oldest_day;
    GET DIAGNOSTICS gone = ROW_COUNT;
    removed := removed + gone;

    -- A device without turns is not the runtime's, and nothing else records when a device was in use.
    IF s.last_turn_no > 0 AND used_at < oldest AND NOT asks AND NOT EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND (m.queued OR m.received_at >= oldest))
    THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
        DELETE FROM @schema.conversation_facts f WHERE f.device_id = device;
        GET DIAGNOSTICS gone = ROW_COUNT;
        removed := removed + gone;
        UPDATE @schema.conversation_states l
            SET heads = '{}'
            WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.heads <> '{}';
    ELSIF last_turn IS NOT NULL THEN
        PERFORM @schema.moorline_prune(device, s.heads, last_turn);
    END IF;
    RETURN removed - @schema.moorline_stored(device);
END
$$;

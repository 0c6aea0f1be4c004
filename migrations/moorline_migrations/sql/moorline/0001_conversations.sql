-- Conversations: what each device has said, what each agent knows of it, and who holds the session.

-- A backend that has its own keeps it, and gains what is missing.
DO $$
BEGIN
    IF to_regclass('@schema.conversation_states') IS NULL THEN
        CREATE TABLE @schema.conversation_states (device_id text PRIMARY KEY) WITH (fillfactor = 70);
        COMMENT ON TABLE @schema.conversation_states IS 'Made by Moorline: a row a device';
    END IF;
END
$$;

-- Gives an existing conversation_states what Moorline needs of it: the first such table of the search_path is changed,
-- as a whole or not at all. May be run any number of times; remove_session_lock_fields.sql takes it back.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c '\i add_session_lock_fields.sql'
--
-- No row is deleted, no column dropped. A column or index that is added says so: 'Added by Moorline: …'.
--
-- The key. Moorline addresses a row by device_id. A table without that column gets it, filled from the column that
-- holds the device's ID: the first that there is of these, of type text, varchar, char or uuid:
--     the one an operator marked:  COMMENT ON COLUMN conversation_states.some_column IS 'moorline-key';
--     user_id, wa_id, session_id
--     the primary key, if it is one column, without a default and not called id
--     the only column called …_id that is NOT NULL or leads an index
--     the primary key, if it is one column
--     the only column called …_id
-- Of several rows with one key, the one with a live lock, else the newest, gets the device_id; the others keep NULL
-- there and stay the old backend's alone. A trigger gives rows that the old backend inserts later their device_id, if
-- no other row has it, and gives rows that Moorline inserts the old backend's key.
--
-- The lock. A live lock stays live. One without a time counts from now, and one that the old backend takes later
-- without giving a time counts from then. A time without time zone is read in the session's TimeZone.

DO $adopt$
DECLARE
    states  regclass := to_regclass('conversation_states');
    home    name;
    rivals  name[];
    key     name;
    added   boolean;
    names   text;
    remedy  text;
    newest  text;
    become  text;
    paused  name[];
    item    name;
    wanted  record;
    present record;
BEGIN
    IF states IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = 'there is no table conversation_states in the search_path',
            HINT = 'Set the search_path to its schema; or run `moorline migrate`, which makes one.';
    END IF;
    SELECT n.nspname INTO home
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = states AND c.relkind = 'r';
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = 'conversation_states is not an ordinary table',
            HINT = 'Rename it, or set MOORLINE_SCHEMA to a schema of Moorline''s own.';
    END IF;
    PERFORM set_config('lock_timeout', '3s', true);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', states);

    -- The key. Our own comment names it if we were here before.
    SELECT substring(col_description(states, a.attnum) FROM '^Added by Moorline: follows (.*)$') INTO key
        FROM pg_attribute a WHERE a.attrelid = states AND a.attname = 'device_id';
    added := NOT FOUND;
    IF NOT added THEN
        key := coalesce(key, 'device_id');
    ELSE
        SELECT array_agg(c.attname ORDER BY c.attname) INTO rivals
            FROM (
                SELECT a.attname, rank() OVER (ORDER BY CASE
                        WHEN col_description(states, a.attnum) = 'moorline-key' THEN 1
                        WHEN a.attname = 'user_id' THEN 2
                        WHEN a.attname = 'wa_id' THEN 3
                        WHEN a.attname = 'session_id' THEN 4
                        WHEN a.attnum = p.attnum AND NOT a.atthasdef AND a.attname <> 'id' THEN 5
                        WHEN a.attname LIKE '%\_id' AND (a.attnotnull OR EXISTS (
                            SELECT FROM pg_index i WHERE i.indrelid = states AND i.indkey[0] = a.attnum)) THEN 6
                        WHEN a.attnum = p.attnum THEN 7
                        WHEN a.attname LIKE '%\_id' THEN 8
                    END) AS place
                FROM pg_attribute a
                LEFT JOIN (
                    SELECT i.indkey[0] AS attnum FROM pg_index i
                        WHERE i.indrelid = states AND i.indisprimary AND i.indnkeyatts = 1
                ) p ON true
                WHERE a.attrelid = states AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                    AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype)
                    AND (a.attname LIKE '%\_id' OR a.attnum = p.attnum
                        OR col_description(states, a.attnum) = 'moorline-key')
                    AND a.attname <> 'claim_id'
            ) c
            WHERE c.place = 1;
        IF cardinality(rivals) IS DISTINCT FROM 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'ML001',
                MESSAGE = CASE WHEN rivals IS NULL
                    THEN 'no text or uuid column of conversation_states looks like the ID of the device'
                    ELSE format('several columns of conversation_states may be the ID of the device: %s',
                        array_to_string(rivals, ', ')) END,
                HINT = 'Mark the one: COMMENT ON COLUMN … IS ''moorline-key''; then run this again.';
        END IF;
        key := rivals[1];
    END IF;

    -- Moorline inserts device_id, and the trigger the key: whatever else a row must have needs a default.
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
            string_agg(format('ALTER COLUMN %I SET DEFAULT …', a.attname), ', ' ORDER BY a.attnum)
        INTO names, remedy
        FROM pg_attribute a
        WHERE a.attrelid = states AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            AND a.attname NOT IN ('device_id', 'active_agent', 'locked_at', 'last_active_at', key);
    IF names IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = format('conversation_states requires a value in %s, and Moorline knows only %s', names, key),
            HINT = format('ALTER TABLE conversation_states %s; or DROP NOT NULL; then run this again. If %I is not the'
                ' ID of the device, mark the one that is: COMMENT ON COLUMN … IS ''moorline-key''.', remedy, key);
    END IF;

    -- The columns. Where one is there already, its type changes only if every value and every later INSERT still fits.
    FOR wanted IN
        SELECT * FROM (VALUES
            ('device_id', 'text', '', format('follows %s', key)),
            ('active_agent', 'character varying', '(50)', 'the agent that holds the session'),
            ('locked_at', 'timestamp with time zone', '', 'since when it holds it'),
            ('session_ttl', 'integer', ' NOT NULL DEFAULT 86400 CHECK (session_ttl > 0)',
                'seconds after the last activity until the lock expires'),
            ('last_active_at', 'timestamp with time zone', '', 'the last activity'),
            ('last_turn_no', 'bigint', ' NOT NULL DEFAULT 0', 'the last committed turn'),
            ('fence', 'bigint', ' NOT NULL DEFAULT 0', 'the number of the last claim'),
            ('claim_id', 'uuid', '', 'the open turn; null if there is none'),
            ('lease_until', 'timestamp with time zone', '', 'until when the open turn is believed alive'),
            ('heads', 'jsonb', ' NOT NULL DEFAULT ''{}''', 'the last committed checkpoint of each namespace'),
            ('arrivals', 'bigint', ' NOT NULL DEFAULT 0', 'the last arrival number given to a message'),
            ('last_worker', 'text', '', 'the process that claimed the last turn'),
            ('worker_turns', 'integer', ' NOT NULL DEFAULT 0', 'how many turns it has claimed in a row'),
            ('open_messages', 'text[]', '', 'the messages of the open turn')
        ) AS w (name, type, rest, meaning)
    LOOP
        SELECT format_type(a.atttypid, NULL) AS type, a.atttypmod - 4 AS length, a.attnotnull, a.atthasdef INTO present
            FROM pg_attribute a WHERE a.attrelid = states AND a.attname = wanted.name AND NOT a.attisdropped;
        IF NOT FOUND THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s%s', states, wanted.name, wanted.type, wanted.rest);
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L',
                states, wanted.name, 'Added by Moorline: ' || wanted.meaning);
            CONTINUE;
        END IF;
        become := CASE
            WHEN wanted.name = 'device_id' AND present.type IN ('character varying', 'uuid') THEN ''
            WHEN wanted.name = 'device_id' AND present.type = 'character' THEN 'text'
            WHEN wanted.name = 'active_agent' AND present.type = 'text' THEN 'varchar'
            WHEN wanted.name = 'active_agent' AND present.type = 'character'
                THEN format('varchar(%s)', greatest(50, present.length))
            WHEN wanted.name = 'active_agent' AND present.type = 'character varying'
                AND present.length BETWEEN 1 AND 49 THEN 'varchar(50)'
            WHEN wanted.type = 'timestamp with time zone' AND present.type = 'timestamp without time zone'
                THEN wanted.type
            WHEN wanted.type = present.type THEN ''
        END;
        IF become IS NULL OR wanted.rest LIKE ' NOT NULL%' AND NOT (present.attnotnull AND present.atthasdef) THEN
            RAISE EXCEPTION USING ERRCODE = 'ML001',
                MESSAGE = format('column %I of conversation_states is not %s%s',
                    wanted.name, wanted.type, wanted.rest),
                HINT = 'Change it to that, or rename it, then run this again.';
        END IF;
        IF wanted.name = 'active_agent' AND present.atthasdef THEN
            RAISE EXCEPTION USING ERRCODE = 'ML001',
                MESSAGE = 'column active_agent of conversation_states has a default: every new row would hold a lock',
                HINT = 'ALTER TABLE conversation_states ALTER COLUMN active_agent DROP DEFAULT; then run this again.';
        END IF;
        IF become <> '' THEN
            BEGIN
                EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', states, wanted.name, become);
            EXCEPTION WHEN feature_not_supported OR datatype_mismatch THEN
                RAISE EXCEPTION USING ERRCODE = 'ML001',
                    MESSAGE = format('column %I of conversation_states cannot become %s: %s',
                        wanted.name, become, SQLERRM),
                    HINT = 'Drop what depends on the column, run this again, and make it anew.';
            END;
        END IF;
        IF present.attnotnull AND wanted.rest NOT LIKE ' NOT NULL%' AND wanted.name <> 'device_id' THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', states, wanted.name);
        END IF;
    END LOOP;

    -- The values. The table's own triggers rest meanwhile: nobody has touched these rows.
    SELECT array_agg(t.tgname) INTO paused
        FROM pg_trigger t WHERE t.tgrelid = states AND NOT t.tgisinternal AND t.tgenabled = 'O';
    FOREACH item IN ARRAY coalesce(paused, '{}') LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', states, item);
    END LOOP;
    IF added THEN
        SELECT string_agg(format('%I DESC NULLS LAST, ', a.attname), '' ORDER BY o.place) INTO newest
            FROM unnest(ARRAY['updated_at', 'modified_at', 'last_active_at', 'created_at', 'inserted_at', 'id']::name[])
                WITH ORDINALITY AS o (name, place)
            JOIN pg_attribute a ON a.attrelid = states AND a.attname = o.name
            JOIN pg_type t ON t.oid = a.atttypid AND t.typcategory IN ('D', 'N');
        EXECUTE format($fill$
            UPDATE %1$s s SET device_id = r.key
                FROM (
                    SELECT ctid AS place, %2$I::text AS key, row_number() OVER (
                        PARTITION BY %2$I
                        ORDER BY active_agent IS NOT NULL
                            AND (locked_at IS NULL OR locked_at + session_ttl * interval '1 second' > now()) DESC,
                            locked_at DESC NULLS LAST, %3$s ctid DESC) AS position
                    FROM %1$s WHERE %2$I IS NOT NULL
                ) r
                WHERE s.ctid = r.place AND r.position = 1
            $fill$, states, key, newest);
    END IF;
    EXECUTE format('UPDATE %s SET locked_at = now()'
        ' WHERE device_id IS NOT NULL AND active_agent IS NOT NULL AND locked_at IS NULL', states);
    FOREACH item IN ARRAY coalesce(paused, '{}') LOOP
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', states, item);
    END LOOP;

    -- The indexes. ON CONFLICT (device_id) needs one that is unique, over that column alone, and never deferred.
    IF NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = states AND a.attname = 'device_id'
            WHERE i.indrelid = states AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
                AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
    THEN
        BEGIN
            EXECUTE format('CREATE UNIQUE INDEX conversation_states_one_row_a_device ON %s (device_id)', states);
        EXCEPTION WHEN unique_violation THEN
            RAISE EXCEPTION USING ERRCODE = 'ML001',
                MESSAGE = 'several rows of conversation_states have the same device_id',
                HINT = 'Keep one row of each device_id, then run this again.';
        END;
        EXECUTE format('COMMENT ON INDEX %I.conversation_states_one_row_a_device IS %L',
            home, 'Added by Moorline: a row a device');
    END IF;
    FOREACH item IN ARRAY ARRAY['active_agent', 'locked_at'] LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', home, 'idx_conversation_states_' || item)) IS NOT NULL;
        EXECUTE format('CREATE INDEX %1$I ON %2$s (%3$I) WHERE %3$I IS NOT NULL',
            'idx_conversation_states_' || item, states, item);
        EXECUTE format('COMMENT ON INDEX %I.%I IS %L',
            home, 'idx_conversation_states_' || item, 'Added by Moorline: the rows that are locked');
    END LOOP;

    -- The triggers, only where an old backend writes too.
    IF key <> 'device_id' THEN
        EXECUTE format($function$
            CREATE OR REPLACE FUNCTION %1$I.moorline_follow_key() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                -- One at a time for a key: else two rows could both find it free.
                PERFORM pg_advisory_xact_lock(
                    hashtextextended('conversation_states ' || coalesce(NEW.device_id, NEW.%2$I::text), 0));
                IF NEW.device_id IS NULL AND NOT EXISTS (
                    SELECT FROM %1$I.conversation_states s WHERE s.device_id = NEW.%2$I::text)
                THEN
                    NEW.device_id := NEW.%2$I::text;
                ELSIF %3$s THEN
                    NEW.%2$I := NEW.device_id;
                END IF;
                RETURN NEW;
            END
            $body$
            $function$, home, key, CASE WHEN (
                SELECT a.atttypid = 'uuid'::regtype FROM pg_attribute a WHERE a.attrelid = states AND a.attname = key)
            THEN 'NEW.device_id ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'''
            ELSE 'NEW.device_id IS NOT NULL' END);
        IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = states AND t.tgname = 'moorline_follow_key') THEN
            EXECUTE format('CREATE TRIGGER moorline_follow_key BEFORE INSERT ON %s'
                ' FOR EACH ROW EXECUTE FUNCTION %I.moorline_follow_key()', states, home);
        END IF;
    END IF;
    IF EXISTS (
        SELECT FROM pg_attribute a
            WHERE a.attrelid = states AND a.attname = 'active_agent'
                AND coalesce(col_description(states, a.attnum), '') NOT LIKE 'Added by Moorline:%')
    THEN
        EXECUTE format($function$
            CREATE OR REPLACE FUNCTION %I.moorline_time_lock() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                IF NEW.locked_at IS NULL
                    OR NEW.locked_at = OLD.locked_at AND NEW.active_agent IS DISTINCT FROM OLD.active_agent
                THEN
                    NEW.locked_at := clock_timestamp();
                END IF;
                RETURN NEW;
            END
            $body$
            $function$, home);
        IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = states AND t.tgname = 'moorline_time_lock') THEN
            EXECUTE format('CREATE TRIGGER moorline_time_lock BEFORE INSERT OR UPDATE OF active_agent ON %s'
                ' FOR EACH ROW WHEN (NEW.active_agent IS NOT NULL) EXECUTE FUNCTION %I.moorline_time_lock()',
                states, home);
        END IF;
    END IF;
END
$adopt$;

CREATE SEQUENCE @schema.conversation_fences;

CREATE TABLE @schema.conversation_messages (
    device_id    text,
    message_id   text,
    turn_no      bigint,
    arrival      bigint NOT NULL,
    text         text NOT NULL,
    resume       jsonb,
    context      jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'interrupted', 'dead')),
    attempts     integer NOT NULL DEFAULT 0,
    claim_id     uuid,
    waiter_until timestamptz,
    worker       text,
    merge        boolean NOT NULL DEFAULT false,
    error        text,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    queued       boolean NOT NULL GENERATED ALWAYS AS (status = 'waiting') STORED,
    PRIMARY KEY (device_id, message_id)
) WITH (fillfactor = 85);

CREATE INDEX conversation_messages_queued ON @schema.conversation_messages (device_id, arrival) WHERE queued;

CREATE TABLE @schema.conversation_turns (
    device_id    text,
    turn_no      bigint,
    fence        bigint NOT NULL,
    agent        varchar(50),
    reply        text NOT NULL,
    interrupt    jsonb,
    handoffs     text[] NOT NULL DEFAULT '{}',
    usage        jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL CHECK (status IN ('done', 'interrupted')),
    attempts     integer NOT NULL,
    started_at   timestamptz NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (device_id, turn_no)
);

-- A task's writes may arrive before their checkpoint: no foreign keys between the next three.
CREATE TABLE @schema.conversation_checkpoints (
    device_id            text,
    checkpoint_ns        text,
    checkpoint_id        text,
    parent_checkpoint_id text,
    type                 text NOT NULL,
    checkpoint           bytea NOT NULL,
    metadata             jsonb NOT NULL,
    versions             jsonb NOT NULL,
    turn_no              bigint,
    fence                bigint,
    PRIMARY KEY (device_id, checkpoint_ns, checkpoint_id)
);

CREATE TABLE @schema.conversation_values (
    device_id     text,
    checkpoint_ns text,
    channel       text,
    version       text,
    type          text NOT NULL,
    blob          bytea,
    fence         bigint,
    PRIMARY KEY (device_id, checkpoint_ns, channel, version)
);

CREATE TABLE @schema.conversation_writes (
    device_id     text,
    checkpoint_ns text,
    checkpoint_id text,
    task_id       text,
    idx           integer,
    task_path     text NOT NULL DEFAULT '',
    channel       text NOT NULL,
    type          text NOT NULL,
    blob          bytea,
    fence         bigint,
    PRIMARY KEY (device_id, checkpoint_ns, checkpoint_id, task_id, idx)
);

CREATE TABLE @schema.conversation_effects (
    device_id   text,
    message_id  text,
    position    integer,
    kind        text NOT NULL CHECK (kind IN ('answer', 'database', 'outside')),
    name        text NOT NULL,
    intent      jsonb NOT NULL,
    result      jsonb,
    turn_no     bigint NOT NULL,
    fence       bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (device_id, message_id, position)
);

CREATE TABLE @schema.moorline_keys (
    name text PRIMARY KEY,
    key  bytea NOT NULL
);

-- Two random UUIDs are 244 random bits.
INSERT INTO @schema.moorline_keys (name, key) VALUES (
    'log',
    pg_catalog.decode(pg_catalog.replace(
        pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex'));

CREATE VIEW @schema.expired_sessions AS
SELECT device_id::text AS device_id,
       active_agent,
       locked_at,
       greatest(last_active_at, locked_at) + session_ttl * interval '1 second' AS expired_at
FROM @schema.conversation_states
WHERE device_id IS NOT NULL
  AND active_agent IS NOT NULL
  AND greatest(last_active_at, locked_at) + session_ttl * interval '1 second' <= clock_timestamp();

-- Turns: what claims a device for one message and what commits the turn's outcome.
--
-- A function's name carries its version, because two versions of the code may run on one schema.
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began:
-- what is read here after the device's row is locked is the state that the last turn left.

-- Claim: claims the device for its next turn, or says why not. Idempotent in claim: asked again with the same claim
-- it gives the same turn again. A message that has to wait keeps a place in the queue for waiter_seconds. Without a
-- message it only looks for what a crashed process left behind: its turn, or a message that waited in it.
--
-- The answer's "outcome" is
--   claimed   the turn to run now: its fence, number, messages, lock and heads, and its journal if it was run before.
--             Its messages are the caller's own (with those merged into it), or those of a turn of this device that
--             a crashed process left behind and that has to be finished first.
--   replayed  the message has been answered: the stored reply.
--   waiting   the message is in the queue, or this very message is already being answered: ask again.
--   busy      another turn runs and the caller would not wait; nothing was stored.
--   dead      the message was set aside after max_attempts.
--   idle      nothing was left behind.
CREATE FUNCTION @schema.moorline_claim_1(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_context jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    first @schema.conversation_messages;
    unawaited boolean;
    busy boolean;
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
    IF NOT FOUND THEN
        IF message IS NULL THEN
            RETURN jsonb_build_object('outcome', 'idle');
        END IF;
        INSERT INTO @schema.conversation_states (device_id, session_ttl) VALUES (key, default_ttl)
            ON CONFLICT (device_id) DO NOTHING;
        SELECT s.* INTO STRICT state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
    END IF;
    moment := clock_timestamp();

    SELECT m.* INTO own FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
    IF own.status IN ('done', 'interrupted') THEN
        RETURN (
            SELECT jsonb_build_object(
                'outcome', 'replayed', 'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply,
                'handoffs', t.handoffs, 'usage', t.usage, 'interrupt', t.interrupt,
                'other_text', own.text <> message_text)
            FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = own.turn_no);
    ELSIF own.status = 'dead' THEN
        RETURN jsonb_build_object('outcome', 'dead', 'error', own.error);
    END IF;

    -- Nobody waits for this message yet: whoever delivered it before, if anybody, has gone.
    unawaited := own.message_id IS NULL OR own.status = 'waiting' AND coalesce(own.waiter_until <= moment, true);
    busy := coalesce(state.lease_until > moment, false);
    IF state.claim_id = claim THEN
        -- The answer to this very claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = moment + lease_seconds * interval '1 second' WHERE s.device_id = key;
        RETURN @schema.moorline_claimed_1(state, moment);
    ELSIF busy AND unawaited AND on_busy = 'reject' THEN
        RETURN jsonb_build_object('outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
        state.arrivals := state.arrivals + 1;
        INSERT INTO @schema.conversation_messages
            (device_id, message_id, arrival, text, resume, context, status, waiter_until, worker, merge)
            VALUES (device, message, state.arrivals, message_text, message_resume, message_context, 'waiting',
                    moment + waiter_seconds * interval '1 second', asking_worker, on_busy = 'merge');
    ELSIF own.status = 'waiting' THEN
        UPDATE @schema.conversation_messages m
            SET waiter_until = moment + waiter_seconds * interval '1 second', worker = asking_worker
            WHERE m.device_id = device AND m.message_id = message;
    END IF;

    IF busy THEN
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN jsonb_build_object('outcome', 'waiting');
    END IF;

    -- Nobody holds the device. A turn whose process died comes first; then messages in order of arrival, but none
    -- whose waiter has gone: nobody would take its reply. A process that had many turns in a row lets others go first.
    LOOP
        SELECT m.* INTO first
            FROM @schema.conversation_messages m
            WHERE m.device_id = device
                AND m.status IN ('waiting', 'running')
                AND CASE
                    WHEN m.status = 'running' THEN true
                    WHEN message IS NULL THEN m.waiter_until <= moment
                    ELSE m.waiter_until > moment END
            ORDER BY m.status = 'running' DESC,
                state.worker_turns >= 8 AND m.worker IS NOT DISTINCT FROM state.last_worker,
                m.arrival
            LIMIT 1;
        IF NOT FOUND THEN
            RETURN jsonb_build_object('outcome', 'idle');
        END IF;
        EXIT WHEN first.attempts < max_attempts;
        UPDATE @schema.conversation_messages m
            SET status = 'dead', waiter_until = NULL,
                error = coalesce(m.error, 'the process that ran it died each time')
            WHERE m.device_id = device
                AND (m.message_id = first.message_id OR first.status = 'running' AND m.status = 'running');
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, lease_until = NULL, arrivals = state.arrivals WHERE s.device_id = key;
        IF EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = message AND m.status = 'dead')
        THEN
            RETURN jsonb_build_object('outcome', 'dead', 'error', (
                SELECT m.error FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message));
        END IF;
    END LOOP;
    IF first.status = 'waiting' AND first.message_id <> message
        AND NOT coalesce(first.claim_id = own.claim_id, false)
        AND NOT (first.merge AND @schema.moorline_merged_1(first, message, moment))
    THEN
        IF unawaited AND on_busy = 'reject' THEN
            DELETE FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message AND own.message_id IS NULL;
            UPDATE @schema.conversation_messages m SET waiter_until = NULL
                WHERE m.device_id = device AND m.message_id = message;
            RETURN jsonb_build_object('outcome', 'busy', 'retry_after', 0);
        END IF;
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN jsonb_build_object('outcome', 'waiting');
    END IF;

    UPDATE @schema.conversation_messages m
        SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL
        WHERE m.device_id = device
            AND m.status = first.status
            AND (m.message_id = first.message_id
                OR m.status = 'running'
                OR m.claim_id = first.claim_id
                OR first.merge AND @schema.moorline_merged_1(first, m.message_id, moment));
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            fence = nextval('@schema.conversation_fences'),
            lease_until = moment + lease_seconds * interval '1 second',
            arrivals = state.arrivals,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id = key
        RETURNING s.* INTO state;
    RETURN @schema.moorline_claimed_1(state, moment);
END
$$;

-- Whether a waiting message is answered together with the first one: both merge, their contexts are equal, neither
-- answers an interrupt, neither ran before, and so it is with every message that waits between them. Those that ran
-- before stay together with those that they ran with, and with no others: the claim they had is their mark.
CREATE FUNCTION @schema.moorline_merged_1(
    first @schema.conversation_messages, message text, moment timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT first.resume IS NULL AND first.claim_id IS NULL AND coalesce(
        bool_and(b.merge AND b.resume IS NULL AND b.claim_id IS NULL AND b.context = first.context), false)
    FROM @schema.conversation_messages m
    JOIN @schema.conversation_messages b
        ON b.device_id = m.device_id AND b.arrival BETWEEN first.arrival AND m.arrival
    WHERE m.device_id = first.device_id AND m.message_id = message
        AND m.status = 'waiting' AND m.waiter_until > moment
        AND b.status = 'waiting' AND b.waiter_until > moment
$$;

-- What a claimed turn starts from.
CREATE FUNCTION @schema.moorline_claimed_1(
    state @schema.conversation_states, moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    first @schema.conversation_messages;
    messages jsonb;
    journal jsonb := '[]';
BEGIN
    SELECT jsonb_agg(jsonb_build_object('id', m.message_id, 'text', m.text) ORDER BY m.arrival) INTO STRICT messages
        FROM @schema.conversation_messages m
        WHERE m.device_id = state.device_id::text AND m.status = 'running' AND m.claim_id = state.claim_id;
    SELECT m.* INTO STRICT first
        FROM @schema.conversation_messages m
        WHERE m.device_id = state.device_id::text AND m.message_id = messages->0->>'id';
    IF first.attempts > 1 OR first.error IS NOT NULL THEN
        SELECT coalesce(
                jsonb_agg(
                    jsonb_build_object('kind', e.kind, 'name', e.name, 'intent', e.intent, 'result', e.result)
                    ORDER BY e.position),
                '[]')
            INTO STRICT journal
            FROM @schema.conversation_effects e
            WHERE e.device_id = first.device_id AND e.message_id = first.message_id;
    END IF;
    RETURN jsonb_build_object(
        'outcome', 'claimed',
        'fence', state.fence,
        'turn_no', state.last_turn_no + 1,
        'now', moment,
        'messages', messages,
        'resume', first.resume,
        'context', first.context,
        'attempts', first.attempts,
        'journal', journal,
        'active_agent', CASE
            WHEN greatest(state.last_active_at, state.locked_at) + state.session_ttl * interval '1 second' > moment
            THEN state.active_agent END,
        'heads', state.heads);
END
$$;

-- A checkpoint with the values of its channels and the writes on top of it, an array a column. Each value is looked up
-- by its key: a join would be planned from guesses of how much a device has stored.
CREATE FUNCTION @schema.moorline_checkpoint_1(device text, ns text, id text) RETURNS TABLE (
    device_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[]
)
LANGUAGE sql STABLE
AS $$
    SELECT c.device_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata,
        c.versions, v.channels, v.versions, v.types, v.blobs, w.tasks, w.idxs, w.paths, w.channels, w.types, w.blobs
    FROM @schema.conversation_checkpoints c
    CROSS JOIN LATERAL (
        SELECT array_agg(n.channel) AS channels, array_agg(n.version) AS versions, array_agg(s.type) AS types,
            array_agg(s.blob) AS blobs
        FROM jsonb_each_text(c.versions) AS n (channel, version)
        CROSS JOIN LATERAL (
            SELECT sv.type, sv.blob
            FROM @schema.conversation_values sv
            WHERE sv.device_id = c.device_id AND sv.checkpoint_ns = c.checkpoint_ns
                AND sv.channel = n.channel AND sv.version = n.version
            LIMIT 1
        ) s
    ) v
    CROSS JOIN LATERAL (
        SELECT array_agg(sw.task_id) AS tasks, array_agg(sw.idx) AS idxs, array_agg(sw.task_path) AS paths,
            array_agg(sw.channel) AS channels, array_agg(sw.type) AS types, array_agg(sw.blob) AS blobs
        FROM @schema.conversation_writes sw
        WHERE sw.device_id = c.device_id AND sw.checkpoint_ns = c.checkpoint_ns
            AND sw.checkpoint_id = c.checkpoint_id
    ) w
    WHERE c.device_id = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = $3
$$;

-- What the given channels' values at a checkpoint are made of: going up its ancestors, the writes stored at each until,
-- for each channel, the first ancestor that has a value of it stored. depth counts upwards; rows without a task are
-- the stored values.
CREATE FUNCTION @schema.moorline_history_1(device text, ns text, id text, channels text[]) RETURNS TABLE (
    depth integer, checkpoint_id text, task_id text, idx integer, task_path text, channel text, version text,
    type text, blob bytea
)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE walk AS (
        SELECT 0 AS depth, t.checkpoint_id, t.parent_checkpoint_id, t.versions, '{}'::text[] AS sought,
            $4 AS missing
        FROM @schema.conversation_checkpoints t
        WHERE t.device_id = $1 AND t.checkpoint_ns = $2 AND t.checkpoint_id = $3
        UNION ALL
        SELECT k.depth + 1, a.checkpoint_id, a.parent_checkpoint_id, a.versions, k.missing,
            ARRAY(
                SELECT m.channel
                FROM unnest(k.missing) AS m (channel)
                WHERE NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = $1 AND v.checkpoint_ns = $2
                        AND v.channel = m.channel AND v.version = a.versions ->> m.channel
                )
            )
        FROM walk k
        JOIN @schema.conversation_checkpoints a
            ON a.device_id = $1 AND a.checkpoint_ns = $2 AND a.checkpoint_id = k.parent_checkpoint_id
        WHERE k.missing <> '{}'
    )
    SELECT k.depth, k.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, NULL::text AS version, w.type, w.blob
    FROM walk k
    JOIN @schema.conversation_writes w
        ON w.device_id = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = k.checkpoint_id
            AND w.channel = ANY (k.sought)
    UNION ALL
    SELECT k.depth, k.checkpoint_id, NULL, NULL, NULL, v.channel, v.version, v.type, v.blob
    FROM walk k
    CROSS JOIN LATERAL unnest(k.sought) AS f (channel)
    JOIN @schema.conversation_values v
        ON v.device_id = $1 AND v.checkpoint_ns = $2
            AND v.channel = f.channel AND v.version = k.versions ->> f.channel
$$;

-- Begin: the claim, and with it the state that the turn's run will read first: the head of the manager and that of the
-- agent that holds the session, each with what its delta channels are made of. A row a head; without one a row that
-- has only the claim's answer. A head that the caller says it knows is left out.
CREATE FUNCTION @schema.moorline_begin_1(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_context jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer, known jsonb
) RETURNS TABLE (
    answer jsonb,
    device_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
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
#variable_conflict use_column
DECLARE
    claimed jsonb := @schema.moorline_claim_1(
        device, message, claim, asking_worker, message_text, message_resume, message_context, on_busy, default_ttl,
        lease_seconds, waiter_seconds, max_attempts);
BEGIN
    RETURN QUERY
        SELECT claimed, c.*, d.channels, h.*
        FROM (SELECT) AS always
        LEFT JOIN (
            SELECT n.key AS ns, n.value AS head
            FROM jsonb_each_text(claimed->'heads') AS n
            WHERE n.key IN ('', claimed->>'active_agent') AND n.value IS DISTINCT FROM known->>n.key
        ) n ON true
        LEFT JOIN LATERAL @schema.moorline_checkpoint_1(device, n.ns, n.head) c ON n.ns IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT array_agg(k.channel) AS channels
            FROM jsonb_object_keys(c.metadata->'counters_since_delta_snapshot') AS k (channel)
        ) d ON true
        LEFT JOIN LATERAL (
            SELECT array_agg(w.depth), array_agg(w.checkpoint_id), array_agg(w.task_id), array_agg(w.idx),
                array_agg(w.task_path), array_agg(w.channel), array_agg(w.version), array_agg(w.type), array_agg(w.blob)
            FROM @schema.moorline_history_1(device, n.ns, n.head, d.channels) w
        ) h ON d.channels IS NOT NULL;
END
$$;

-- Commit: writes all that the turn leaves behind, if its fence still stands; else nothing. Idempotent: a turn
-- that was committed and is committed again (its acknowledgement was lost) answers true again.
-- Checkpoints, values and writes come as one array a column.
CREATE FUNCTION @schema.moorline_commit_1(
    device text, claim uuid, turn_fence bigint, turn jsonb,
    c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[], c_versions text[],
    v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[], w_type text[],
    w_blob bytea[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    number bigint;
    dropped text[];
    agent text := turn->>'active_agent';
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE;
    moment := clock_timestamp();
    IF state.claim_id IS DISTINCT FROM claim OR state.fence <> turn_fence THEN
        RETURN EXISTS (
            SELECT 1 FROM @schema.conversation_turns t
            WHERE t.device_id = device AND t.turn_no = (turn->>'turn_no')::bigint AND t.fence = turn_fence);
    END IF;
    number := state.last_turn_no + 1;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT device, c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb, number, turn_fence
        FROM unnest(c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (ns, id, parent, type, body, metadata, versions);
    INSERT INTO @schema.conversation_values
        (device_id, checkpoint_ns, channel, version, type, blob, fence)
        SELECT device, v.ns, v.channel, v.version, v.type, v.blob, turn_fence
        FROM unnest(v_ns, v_channel, v_version, v_type, v_blob) AS v (ns, channel, version, type, blob)
        ON CONFLICT DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob, fence)
        SELECT device, w.ns, w.id, w.task, w.idx, w.path, w.channel, w.type, w.blob, turn_fence
        FROM unnest(w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob)
            AS w (ns, id, task, idx, path, channel, type, blob);

    -- Namespaces that nothing will enter again: an interrupt kept them, and it is over.
    dropped := ARRAY(SELECT n.key FROM jsonb_each(state.heads) AS n WHERE NOT turn->'heads' ? n.key);
    IF dropped <> '{}' THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
    END IF;

    INSERT INTO @schema.conversation_turns
        (device_id, turn_no, fence, agent, reply, interrupt, handoffs, usage, status, attempts, started_at,
         committed_at)
        SELECT device, number, turn_fence, turn->>'agent', turn->>'reply', turn->'interrupt',
            ARRAY(SELECT jsonb_array_elements_text(turn->'handoffs')), turn->'usage', turn->>'status',
            (turn->>'attempts')::integer, (turn->>'started_at')::timestamptz, moment;
    UPDATE @schema.conversation_messages m
        SET status = turn->>'status', turn_no = number, claim_id = NULL, context = '{}', error = NULL
        WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    IF turn ? 'journal_of' THEN
        -- Effects stay on record; the answers that led to them have served.
        DELETE FROM @schema.conversation_effects e
            WHERE e.device_id = device AND e.message_id = turn->>'journal_of' AND e.kind = 'answer';
    END IF;
    UPDATE @schema.conversation_states s
        SET active_agent = agent,
            locked_at = CASE
                WHEN agent IS NULL THEN NULL
                WHEN (turn->>'lock_taken')::boolean THEN moment
                ELSE s.locked_at END,
            session_ttl = coalesce((turn->>'session_ttl')::integer, s.session_ttl),
            last_active_at = moment,
            last_turn_no = number,
            heads = turn->'heads',
            claim_id = NULL,
            lease_until = NULL
        WHERE s.device_id = key;
    RETURN true;
END
$$;

-- Heartbeat: renews the lease of a turn that is still running. False: another process has claimed since.
CREATE FUNCTION @schema.moorline_heartbeat_1(
    device text, claim uuid, turn_fence bigint, lease_seconds double precision
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = clock_timestamp() + lease_seconds * interval '1 second'
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence;
    RETURN FOUND;
END
$$;

-- Release: ends a turn that failed, so that the device goes on at once. Its messages wait for their next delivery, those
-- that nobody was told of (all but told) also for whoever recovers what was left behind; after max_attempts they are set
-- aside. A failure that is not the messages' own fault (give_back) does not count as an attempt.
CREATE FUNCTION @schema.moorline_release_1(
    device text, claim uuid, turn_fence bigint, told text, give_back boolean, failure text, max_attempts integer
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET claim_id = NULL, lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_messages m
        SET attempts = m.attempts - give_back::integer,
            status = CASE WHEN m.attempts - give_back::integer >= max_attempts THEN 'dead' ELSE 'waiting' END,
            waiter_until = CASE WHEN m.message_id IS DISTINCT FROM told THEN clock_timestamp() END,
            error = failure
        WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    RETURN true;
END
$$;

-- Abandon: leaves a turn as if its process had died now: whoever claims the device next has to finish it first.
CREATE FUNCTION @schema.moorline_abandon_1(device text, claim uuid, give_back boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.lease_until IS NOT NULL;
    IF FOUND AND give_back THEN
        UPDATE @schema.conversation_messages m
            SET attempts = m.attempts - 1
            WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
    END IF;
END
$$;

-- Withdraw: for a message whose caller has gone before its turn began. It gives up its place in the queue; and if the
-- claim was won after all, only that nobody learned of it, the turn is let go and counts as no attempt.
CREATE FUNCTION @schema.moorline_withdraw_1(device text, message text, claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
BEGIN
    IF EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = message AND m.claim_id = claim AND m.status = 'running')
    THEN
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, lease_until = NULL WHERE s.device_id = key AND s.claim_id = claim;
        IF FOUND THEN
            UPDATE @schema.conversation_messages m
                SET status = 'waiting', attempts = m.attempts - 1, waiter_until = clock_timestamp()
                WHERE m.device_id = device AND m.claim_id = claim AND m.status = 'running';
        END IF;
    ELSE
        PERFORM @schema.moorline_abandon_1(device, claim, true);
    END IF;
    UPDATE @schema.conversation_messages m SET waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = message AND m.status = 'waiting';
END
$$;


-- Turns in groups: what begins and what commits the turns of many devices in one statement each.
--
-- A group takes the rows of its devices in the order of their IDs and skips a row that somebody else has locked: no two
-- groups wait for each other, and one device's lock holds up no other. Each member has an outcome of its own; "locked"
-- means that nothing was done for it and that it may ask again.
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began: what is read here
-- after a device's row is locked is the state that its last turn left.

-- The messages of a device's open turn. Code that does not know open_messages leaves them to be searched for.
CREATE FUNCTION @schema.moorline_running_2(
    device text, state @schema.conversation_states
) RETURNS SETOF @schema.conversation_messages
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY
        SELECT m.* FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = ANY (state.open_messages)
            AND m.status = 'running' AND m.claim_id = state.claim_id;
    IF NOT FOUND THEN
        RETURN QUERY
            SELECT m.* FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.status = 'running' AND state.claim_id IS NOT NULL;
    END IF;
END
$$;

-- Claim: as moorline_claim_1, with the same answers, but that it does not wait for a device's row: its outcome is then
-- "locked". A message that finds nobody before it begins to run at once, without a place in the queue.
CREATE FUNCTION @schema.moorline_claim_2(
    device text, message text, claim uuid, asking_worker text, message_text text, message_resume jsonb,
    message_context jsonb, on_busy text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
    own @schema.conversation_messages;
    first @schema.conversation_messages;
    unawaited boolean;
    busy boolean;
    chosen text[];
    moment timestamptz;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id = key) THEN
            RETURN '{"outcome": "locked"}';
        ELSIF message IS NULL THEN
            RETURN '{"outcome": "idle"}';
        END IF;
        INSERT INTO @schema.conversation_states AS s (device_id, session_ttl) VALUES (key, default_ttl)
            ON CONFLICT (device_id) DO NOTHING
            RETURNING s.* INTO state;
        IF NOT FOUND THEN
            RETURN '{"outcome": "locked"}';
        END IF;
    END IF;
    moment := clock_timestamp();

    SELECT m.* INTO own FROM @schema.conversation_messages m WHERE m.device_id = device AND m.message_id = message;
    IF own.status IN ('done', 'interrupted') THEN
        RETURN (
            SELECT jsonb_build_object(
                'outcome', 'replayed', 'turn_no', t.turn_no, 'agent', t.agent, 'reply', t.reply,
                'handoffs', t.handoffs, 'usage', t.usage, 'interrupt', t.interrupt,
                'other_text', own.text <> message_text)
            FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = own.turn_no);
    ELSIF own.status = 'dead' THEN
        RETURN jsonb_build_object('outcome', 'dead', 'error', own.error);
    END IF;

    -- Nobody waits for this message yet: whoever delivered it before, if anybody, has gone.
    unawaited := own.message_id IS NULL OR own.status = 'waiting' AND coalesce(own.waiter_until <= moment, true);
    busy := coalesce(state.lease_until > moment, false);
    IF state.claim_id = claim THEN
        -- The answer to this very claim was lost.
        UPDATE @schema.conversation_states s
            SET lease_until = moment + lease_seconds * interval '1 second' WHERE s.device_id = key;
        RETURN @schema.moorline_claimed_2(device, state, moment);
    ELSIF busy AND unawaited AND on_busy = 'reject' THEN
        RETURN jsonb_build_object('outcome', 'busy', 'retry_after', extract(epoch FROM state.lease_until - moment));
    ELSIF own.message_id IS NULL AND message IS NOT NULL THEN
        IF state.claim_id IS NULL AND NOT EXISTS (
            SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = device AND m.queued)
        THEN
            INSERT INTO @schema.conversation_messages AS m
                (device_id, message_id, arrival, text, resume, context, status, attempts, claim_id, merge)
                VALUES (device, message, state.arrivals + 1, message_text, message_resume, message_context, 'running',
                        1, claim, on_busy = 'merge')
                RETURNING m.* INTO first;
            state := @schema.moorline_take_2(
                device, claim, ARRAY[message], asking_worker, state.arrivals + 1, lease_seconds, moment);
            RETURN @schema.moorline_answer_2(
                state, first, jsonb_build_array(jsonb_build_object('id', message, 'text', message_text)), '[]', moment);
        END IF;
        state.arrivals := state.arrivals + 1;
        INSERT INTO @schema.conversation_messages
            (device_id, message_id, arrival, text, resume, context, status, waiter_until, worker, merge)
            VALUES (device, message, state.arrivals, message_text, message_resume, message_context, 'waiting',
                    moment + waiter_seconds * interval '1 second', asking_worker, on_busy = 'merge');
    ELSIF own.status = 'waiting' THEN
        UPDATE @schema.conversation_messages m
            SET waiter_until = moment + waiter_seconds * interval '1 second', worker = asking_worker
            WHERE m.device_id = device AND m.message_id = message;
    END IF;

    IF busy THEN
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN '{"outcome": "waiting"}';
    END IF;

    -- Nobody holds the device. A turn whose process died comes first; then messages in order of arrival, but none
    -- whose waiter has gone: nobody would take its reply. A process that had many turns in a row lets others go first.
    LOOP
        SELECT m.* INTO first FROM @schema.moorline_running_2(device, state) m ORDER BY m.arrival LIMIT 1;
        IF NOT FOUND THEN
            SELECT m.* INTO first
                FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.queued
                    AND CASE WHEN message IS NULL THEN m.waiter_until <= moment ELSE m.waiter_until > moment END
                ORDER BY state.worker_turns >= 8 AND m.worker IS NOT DISTINCT FROM state.last_worker, m.arrival
                LIMIT 1;
        END IF;
        IF NOT FOUND THEN
            RETURN '{"outcome": "idle"}';
        END IF;
        EXIT WHEN first.attempts < max_attempts;
        UPDATE @schema.conversation_messages m
            SET status = 'dead', waiter_until = NULL,
                error = coalesce(m.error, 'the process that ran it died each time')
            WHERE m.device_id = device
                AND (m.message_id = first.message_id
                    OR first.status = 'running'
                        AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r));
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, open_messages = NULL, lease_until = NULL, arrivals = state.arrivals
            WHERE s.device_id = key
            RETURNING s.* INTO state;
        IF EXISTS (
            SELECT 1 FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.message_id = message AND m.status = 'dead')
        THEN
            RETURN jsonb_build_object('outcome', 'dead', 'error', (
                SELECT m.error FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message));
        END IF;
    END LOOP;
    IF first.status = 'waiting' AND first.message_id <> message
        AND NOT coalesce(first.claim_id = own.claim_id, false)
        AND NOT (first.merge AND @schema.moorline_merged_2(first, message, moment))
    THEN
        IF unawaited AND on_busy = 'reject' THEN
            DELETE FROM @schema.conversation_messages m
                WHERE m.device_id = device AND m.message_id = message AND own.message_id IS NULL;
            UPDATE @schema.conversation_messages m SET waiter_until = NULL
                WHERE m.device_id = device AND m.message_id = message;
            RETURN jsonb_build_object('outcome', 'busy', 'retry_after', 0);
        END IF;
        UPDATE @schema.conversation_states s SET arrivals = state.arrivals
            WHERE s.device_id = key AND s.arrivals <> state.arrivals;
        RETURN '{"outcome": "waiting"}';
    END IF;

    IF first.status = 'running' THEN
        chosen := ARRAY(SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    ELSE
        chosen := ARRAY(
            SELECT m.message_id FROM @schema.conversation_messages m
            WHERE m.device_id = device AND m.queued
                AND (m.message_id = first.message_id
                    OR m.claim_id = first.claim_id
                    OR first.merge AND @schema.moorline_merged_2(first, m.message_id, moment)));
    END IF;
    UPDATE @schema.conversation_messages m
        SET status = 'running', claim_id = claim, attempts = m.attempts + 1, waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = ANY (chosen);
    state := @schema.moorline_take_2(device, claim, chosen, asking_worker, state.arrivals, lease_seconds, moment);
    RETURN @schema.moorline_claimed_2(device, state, moment);
END
$$;

-- Writes a claim into the row of its device.
CREATE FUNCTION @schema.moorline_take_2(
    device text, claim uuid, messages text[], asking_worker text, last_arrival bigint, lease_seconds double precision,
    moment timestamptz
) RETURNS @schema.conversation_states
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    UPDATE @schema.conversation_states s
        SET claim_id = claim,
            open_messages = messages,
            fence = nextval('@schema.conversation_fences'),
            lease_until = moment + lease_seconds * interval '1 second',
            arrivals = last_arrival,
            last_worker = asking_worker,
            worker_turns = CASE WHEN s.last_worker = asking_worker THEN s.worker_turns + 1 ELSE 1 END
        WHERE s.device_id = key
        RETURNING s.* INTO STRICT state;
    RETURN state;
END
$$;

-- As moorline_merged_1: whether a waiting message is answered together with the first one.
CREATE FUNCTION @schema.moorline_merged_2(
    first @schema.conversation_messages, message text, moment timestamptz
) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT first.resume IS NULL AND first.claim_id IS NULL AND coalesce(
        bool_and(b.merge AND b.resume IS NULL AND b.claim_id IS NULL AND b.context = first.context), false)
    FROM @schema.conversation_messages m
    JOIN @schema.conversation_messages b
        ON b.device_id = m.device_id AND b.queued AND b.arrival BETWEEN first.arrival AND m.arrival
            AND b.waiter_until > moment
    WHERE m.device_id = first.device_id AND m.message_id = message AND m.queued AND m.waiter_until > moment
$$;

-- What a claimed turn starts from: its messages, and its journal if it was run before.
CREATE FUNCTION @schema.moorline_claimed_2(
    device text, state @schema.conversation_states, moment timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    first @schema.conversation_messages;
    messages jsonb;
    journal jsonb := '[]';
BEGIN
    SELECT jsonb_agg(jsonb_build_object('id', m.message_id, 'text', m.text) ORDER BY m.arrival) INTO STRICT messages
        FROM @schema.moorline_running_2(device, state) m;
    SELECT m.* INTO STRICT first
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = messages->0->>'id';
    IF first.attempts > 1 OR first.error IS NOT NULL THEN
        SELECT coalesce(
                jsonb_agg(
                    jsonb_build_object('kind', e.kind, 'name', e.name, 'intent', e.intent, 'result', e.result)
                    ORDER BY e.position),
                '[]')
            INTO STRICT journal
            FROM @schema.conversation_effects e
            WHERE e.device_id = device AND e.message_id = first.message_id;
    END IF;
    RETURN @schema.moorline_answer_2(state, first, messages, journal, moment);
END
$$;

-- The answer to a claim that was won.
CREATE FUNCTION @schema.moorline_answer_2(
    state @schema.conversation_states, first @schema.conversation_messages, messages jsonb, journal jsonb,
    moment timestamptz
) RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object(
        'outcome', 'claimed',
        'fence', state.fence,
        'turn_no', state.last_turn_no + 1,
        'now', moment,
        'messages', messages,
        'resume', first.resume,
        'context', first.context,
        'attempts', first.attempts,
        'journal', journal,
        'active_agent', CASE
            WHEN greatest(state.last_active_at, state.locked_at) + state.session_ttl * interval '1 second' > moment
            THEN state.active_agent END,
        'heads', state.heads)
$$;

-- What the values of delta channels at a checkpoint are made of, as moorline_history_1 says; each step up goes by the
-- key of the parent, however few the stored checkpoints are: OFFSET 0 keeps the planner from reading all of them anew.
CREATE FUNCTION @schema.moorline_history_2(device text, ns text, id text, channels text[]) RETURNS TABLE (
    depth integer, checkpoint_id text, task_id text, idx integer, task_path text, channel text, version text,
    type text, blob bytea
)
LANGUAGE sql STABLE
AS $$
    WITH RECURSIVE walk AS (
        SELECT 0 AS depth, t.checkpoint_id, t.parent_checkpoint_id, t.versions, '{}'::text[] AS sought,
            $4 AS missing
        FROM @schema.conversation_checkpoints t
        WHERE t.device_id = $1 AND t.checkpoint_ns = $2 AND t.checkpoint_id = $3
        UNION ALL
        SELECT k.depth + 1, a.checkpoint_id, a.parent_checkpoint_id, a.versions, k.missing,
            ARRAY(
                SELECT m.channel
                FROM unnest(k.missing) AS m (channel)
                WHERE NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = $1 AND v.checkpoint_ns = $2
                        AND v.channel = m.channel AND v.version = a.versions ->> m.channel
                )
            )
        FROM walk k
        CROSS JOIN LATERAL (
            SELECT a.checkpoint_id, a.parent_checkpoint_id, a.versions
            FROM @schema.conversation_checkpoints a
            WHERE a.device_id = $1 AND a.checkpoint_ns = $2 AND a.checkpoint_id = k.parent_checkpoint_id
            OFFSET 0
        ) a
        WHERE k.missing <> '{}'
    )
    SELECT k.depth, k.checkpoint_id, w.task_id, w.idx, w.task_path, w.channel, NULL::text AS version, w.type, w.blob
    FROM walk k
    CROSS JOIN LATERAL (
        SELECT w.task_id, w.idx, w.task_path, w.channel, w.type, w.blob
        FROM @schema.conversation_writes w
        WHERE w.device_id = $1 AND w.checkpoint_ns = $2 AND w.checkpoint_id = k.checkpoint_id
            AND w.channel = ANY (k.sought)
        OFFSET 0
    ) w
    UNION ALL
    SELECT k.depth, k.checkpoint_id, NULL, NULL, NULL, v.channel, v.version, v.type, v.blob
    FROM walk k
    CROSS JOIN LATERAL unnest(k.sought) AS f (channel)
    JOIN @schema.conversation_values v
        ON v.device_id = $1 AND v.checkpoint_ns = $2
            AND v.channel = f.channel AND v.version = k.versions ->> f.channel
$$;

-- Begin: the claims of a group, one place each in the arrays, and with each what its run will read first: the head of
-- the manager and that of the agent that holds the session, each with what its delta channels are made of. A row a
-- head; without one a row that has only the claim's answer. A head that the caller says it knows (a JSON object of
-- heads by namespace) is left out.
CREATE FUNCTION @schema.moorline_begin_2(
    devices text[], messages text[], claims uuid[], texts text[], resumes text[], contexts text[], on_busy text[],
    known text[], asking_worker text, default_ttl integer, lease_seconds double precision,
    waiter_seconds double precision, max_attempts integer
) RETURNS TABLE (
    place integer, answer jsonb,
    device_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[],
    delta_channels text[], history_depths integer[], history_ids text[], history_tasks text[], history_idxs integer[],
    history_paths text[], history_channels text[], history_versions text[], history_types text[],
    history_blobs bytea[]
)
LANGUAGE plpgsql VOLATILE
-- All of it goes by keys. Planning it anew, five times on each connection, would take longer than the rest.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    claimed jsonb;
    wanted jsonb;
BEGIN
    FOR own IN SELECT n.place FROM unnest(devices) WITH ORDINALITY AS n (device, place) ORDER BY n.device, n.place LOOP
        claimed := @schema.moorline_claim_2(
            devices[own], messages[own], claims[own], asking_worker, texts[own], resumes[own]::jsonb,
            contexts[own]::jsonb, on_busy[own], default_ttl, lease_seconds, waiter_seconds, max_attempts);
        wanted := (
            SELECT jsonb_object_agg(n.key, n.value)
            FROM jsonb_each_text(claimed->'heads') AS n
            WHERE n.key IN ('', claimed->>'active_agent') AND n.value IS DISTINCT FROM known[own]::jsonb->>n.key);
        IF wanted IS NULL THEN
            place := own;
            answer := claimed;
            RETURN NEXT;
            CONTINUE;
        END IF;
        RETURN QUERY
            SELECT own, claimed, c.*, d.channels, h.*
            FROM jsonb_each_text(wanted) AS n (ns, head)
            LEFT JOIN LATERAL @schema.moorline_checkpoint_1(devices[own], n.ns, n.head) c ON true
            LEFT JOIN LATERAL (
                SELECT array_agg(k.channel) AS channels
                FROM jsonb_object_keys(c.metadata->'counters_since_delta_snapshot') AS k (channel)
            ) d ON true
            LEFT JOIN LATERAL (
                SELECT array_agg(w.depth), array_agg(w.checkpoint_id), array_agg(w.task_id), array_agg(w.idx),
                    array_agg(w.task_path), array_agg(w.channel), array_agg(w.version), array_agg(w.type),
                    array_agg(w.blob)
                FROM @schema.moorline_history_2(devices[own], n.ns, n.head, d.channels) w
            ) h ON d.channels IS NOT NULL;
    END LOOP;
END
$$;

-- Commit: the outcomes of a group of turns, one place each in the arrays: committed, or stale (its fence no longer
-- stands, and nothing was written), or locked. Idempotent: a turn that was committed and is committed again (its
-- acknowledgement was lost) is committed again.
-- Checkpoints, values and writes come as one array a column, the first of them the place of their turn.
CREATE FUNCTION @schema.moorline_commit_2(
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
    key @schema.conversation_states.device_id%TYPE;
    state @schema.conversation_states;
    turn jsonb;
    ids text[];
    numbers bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(devices)]);
    moment timestamptz;
BEGIN
    FOR own IN SELECT n.place FROM unnest(devices) WITH ORDINALITY AS n (device, place) ORDER BY n.device, n.place LOOP
        key := devices[own];
        turn := turns[own]::jsonb;
        place := own;
        SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            outcome := CASE
                WHEN EXISTS (SELECT 1 FROM @schema.conversation_states s WHERE s.device_id = key) THEN 'locked'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        ELSIF state.claim_id IS DISTINCT FROM claims[own] OR state.fence <> fences[own] THEN
            outcome := CASE
                WHEN EXISTS (
                    SELECT 1 FROM @schema.conversation_turns t
                    WHERE t.device_id = devices[own] AND t.turn_no = (turn->>'turn_no')::bigint
                        AND t.fence = fences[own])
                THEN 'committed'
                ELSE 'stale' END;
            RETURN NEXT;
            CONTINUE;
        END IF;
        outcome := 'committed';
        RETURN NEXT;
        moment := clock_timestamp();
        numbers[own] := state.last_turn_no + 1;
        ids := ARRAY(SELECT jsonb_array_elements_text(turn->'messages'));
        UPDATE @schema.conversation_messages m
            SET status = turn->>'status', turn_no = numbers[own], claim_id = NULL, worker = NULL, context = '{}',
                error = NULL
            WHERE m.device_id = devices[own] AND m.message_id = ANY (ids)
                AND m.claim_id = claims[own] AND m.status = 'running';
        UPDATE @schema.conversation_states s
            SET active_agent = turn->>'active_agent',
                locked_at = CASE
                    WHEN turn->>'active_agent' IS NULL THEN NULL
                    WHEN (turn->>'lock_taken')::boolean THEN moment
                    ELSE s.locked_at END,
                session_ttl = coalesce((turn->>'session_ttl')::integer, s.session_ttl),
                last_active_at = moment,
                last_turn_no = numbers[own],
                heads = turn->'heads',
                claim_id = NULL,
                open_messages = NULL,
                lease_until = NULL
            WHERE s.device_id = key;
        INSERT INTO @schema.conversation_turns
            (device_id, turn_no, fence, agent, reply, interrupt, handoffs, usage, status, attempts, started_at,
             committed_at)
            VALUES (
                devices[own], numbers[own], fences[own], turn->>'agent', turn->>'reply',
                nullif(turn->'interrupt', 'null'), ARRAY(SELECT jsonb_array_elements_text(turn->'handoffs')),
                turn->'usage', turn->>'status', (turn->>'attempts')::integer, (turn->>'started_at')::timestamptz,
                moment);
        IF turn ? 'journal_of' THEN
            -- Effects stay on record; the answers that led to them have served.
            DELETE FROM @schema.conversation_effects e
                WHERE e.device_id = devices[own] AND e.message_id = turn->>'journal_of' AND e.kind = 'answer';
        END IF;
        PERFORM @schema.moorline_drop_2(devices[own], ARRAY(
            SELECT n.key FROM jsonb_object_keys(state.heads) AS n (key) WHERE NOT turn->'heads' ? n.key));
    END LOOP;

    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions,
         turn_no, fence)
        SELECT devices[c.place], c.ns, c.id, c.parent, c.type, c.body, c.metadata::jsonb, c.versions::jsonb,
            numbers[c.place], fences[c.place]
        FROM unnest(c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS c (place, ns, id, parent, type, body, metadata, versions)
        WHERE numbers[c.place] IS NOT NULL;
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
        WHERE numbers[w.place] IS NOT NULL;

    -- Now and then, so that a turn's share of it is small.
    PERFORM @schema.moorline_prune_2(devices[n.place], turns[n.place]::jsonb->'heads', n.number - keep_turns)
        FROM unnest(numbers) WITH ORDINALITY AS n (number, place)
        WHERE n.number % keep_turns = 0;
END
$$;

-- Drop: removes namespaces that nothing will enter again: an interrupt kept them, and it is over.
CREATE FUNCTION @schema.moorline_drop_2(device text, dropped text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    IF dropped <> '{}' THEN
        DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device AND c.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_values v WHERE v.device_id = device AND v.checkpoint_ns = ANY (dropped);
        DELETE FROM @schema.conversation_writes w WHERE w.device_id = device AND w.checkpoint_ns = ANY (dropped);
    END IF;
END
$$;

-- Prune: removes the checkpoints of turns up to last_turn that nothing is made of any more. What stays of those: the
-- heads; in each namespace the ancestors that the delta channels of its oldest later checkpoint are made of.
CREATE FUNCTION @schema.moorline_prune_2(device text, heads jsonb, last_turn bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    doomed text[];
    head record;
BEGIN
    FOR head IN SELECT n.key AS ns, n.value AS id FROM jsonb_each_text(heads) AS n LOOP
        WITH RECURSIVE oldest AS (
            SELECT c.checkpoint_id, c.parent_checkpoint_id, c.metadata
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns
                AND (c.turn_no > last_turn OR c.checkpoint_id = head.id)
            ORDER BY c.turn_no
            LIMIT 1
        ), walk AS (
            SELECT o.checkpoint_id, o.parent_checkpoint_id,
                ARRAY(
                    SELECT k.channel
                    FROM jsonb_object_keys(o.metadata->'counters_since_delta_snapshot') AS k (channel)
                ) AS missing
            FROM oldest o
            UNION ALL
            SELECT a.checkpoint_id, a.parent_checkpoint_id,
                ARRAY(
                    SELECT m.channel
                    FROM unnest(w.missing) AS m (channel)
                    WHERE NOT EXISTS (
                        SELECT 1
                        FROM @schema.conversation_values v
                        WHERE v.device_id = device AND v.checkpoint_ns = head.ns
                            AND v.channel = m.channel AND v.version = a.versions ->> m.channel
                    )
                )
            FROM walk w
            JOIN @schema.conversation_checkpoints a
                ON a.device_id = device AND a.checkpoint_ns = head.ns AND a.checkpoint_id = w.parent_checkpoint_id
            WHERE w.missing <> '{}'
        )
        SELECT array_agg(c.checkpoint_id) INTO doomed
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND c.turn_no <= last_turn
                AND c.checkpoint_id NOT IN (SELECT w.checkpoint_id FROM walk w);
        CONTINUE WHEN doomed IS NULL;
        WITH gone AS (
            DELETE FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND c.checkpoint_id = ANY (doomed)
            RETURNING c.versions
        ), unused AS (
            SELECT n.key AS channel, n.value AS version
            FROM gone g
            CROSS JOIN LATERAL jsonb_each_text(g.versions) AS n
            EXCEPT
            SELECT n.key, n.value
            FROM @schema.conversation_checkpoints c
            CROSS JOIN LATERAL jsonb_each_text(c.versions) AS n
            WHERE c.device_id = device AND c.checkpoint_ns = head.ns AND NOT c.checkpoint_id = ANY (doomed)
        ), gone_writes AS (
            DELETE FROM @schema.conversation_writes w
            WHERE w.device_id = device AND w.checkpoint_ns = head.ns AND w.checkpoint_id = ANY (doomed)
        )
        DELETE FROM @schema.conversation_values v
            USING unused u
            WHERE v.device_id = device AND v.checkpoint_ns = head.ns AND v.channel = u.channel
                AND v.version = u.version;
    END LOOP;
END
$$;

-- Release: as moorline_release_1.
CREATE FUNCTION @schema.moorline_release_2(
    device text, claim uuid, turn_fence bigint, told text, give_back boolean, failure text, max_attempts integer
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    SELECT s.* INTO state
        FROM @schema.conversation_states s
        WHERE s.device_id = key AND s.claim_id = claim AND s.fence = turn_fence
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE @schema.conversation_messages m
        SET attempts = m.attempts - give_back::integer,
            status = CASE WHEN m.attempts - give_back::integer >= max_attempts THEN 'dead' ELSE 'waiting' END,
            waiter_until = CASE WHEN m.message_id IS DISTINCT FROM told THEN clock_timestamp() END,
            error = failure
        WHERE m.device_id = device
            AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    UPDATE @schema.conversation_states s
        SET claim_id = NULL, open_messages = NULL, lease_until = NULL WHERE s.device_id = key;
    RETURN true;
END
$$;

-- Abandon: as moorline_abandon_1.
CREATE FUNCTION @schema.moorline_abandon_2(device text, claim uuid, give_back boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = NULL
        WHERE s.device_id = key AND s.claim_id = claim AND s.lease_until IS NOT NULL
        RETURNING s.* INTO state;
    IF FOUND AND give_back THEN
        UPDATE @schema.conversation_messages m
            SET attempts = m.attempts - 1
            WHERE m.device_id = device
                AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
    END IF;
END
$$;

-- Withdraw: as moorline_withdraw_1.
CREATE FUNCTION @schema.moorline_withdraw_2(device text, message text, claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    SELECT s.* INTO state FROM @schema.conversation_states s WHERE s.device_id = key AND s.claim_id = claim FOR UPDATE;
    IF FOUND AND EXISTS (
        SELECT 1 FROM @schema.moorline_running_2(device, state) r WHERE r.message_id = message)
    THEN
        UPDATE @schema.conversation_messages m
            SET status = 'waiting', attempts = m.attempts - 1, waiter_until = clock_timestamp()
            WHERE m.device_id = device
                AND m.message_id IN (SELECT r.message_id FROM @schema.moorline_running_2(device, state) r);
        UPDATE @schema.conversation_states s
            SET claim_id = NULL, open_messages = NULL, lease_until = NULL WHERE s.device_id = key;
    ELSE
        PERFORM @schema.moorline_abandon_2(device, claim, true);
    END IF;
    UPDATE @schema.conversation_messages m SET waiter_until = NULL
        WHERE m.device_id = device AND m.message_id = message AND m.status = 'waiting';
END
$$;
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

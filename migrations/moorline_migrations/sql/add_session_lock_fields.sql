-- Adds to an existing conversation_states what Moorline needs. It changes the first such table in the search_path,
-- completely or not at all. It may be run any number of times; remove_session_lock_fields.sql undoes it.
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c '\i add_session_lock_fields.sql'
--
-- No row is deleted and no column dropped. Each added column and index has a comment: 'Added by Moorline: …'.
--
-- The key. Moorline finds a row by its device_id. A table without that column gets one, filled from the column that
-- holds the device's ID: the first of these that exists and is of type text, varchar, char or uuid:
--     the one an operator marked:  COMMENT ON COLUMN conversation_states.some_column IS 'moorline-key';
--     user_id, wa_id, session_id
--     the primary key, if it is one column, without a default and not called id
--     the only column called …_id that is NOT NULL or leads an index
--     the primary key, if it is one column
--     the only column called …_id
-- If several rows have the same key, the one with a live lock, or else the newest, gets the device_id; in the others it
-- stays NULL, and Moorline never touches them. A trigger sets device_id in rows that the old backend inserts later,
-- unless another row has it already, and sets the old backend's key in rows that Moorline inserts.
--
-- The lock. A live lock stays live. A lock without a time is dated now, and one that the old backend takes later
-- without a time is dated when it is taken. A time without a time zone is read in the session's TimeZone.

DO $adopt$
DECLARE
    states  regclass := pg_catalog.to_regclass('conversation_states');
    before  text := pg_catalog.current_setting('search_path');
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
    -- From here on names carry their schema, and only pg_catalog is searched for the others: nothing planted in another
    -- schema is run.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT n.nspname INTO home
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = states AND c.relkind = 'r';
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ML001',
            MESSAGE = 'conversation_states is not an ordinary table',
            HINT = 'Rename it, or set MOORLINE_SCHEMA to a schema of Moorline''s own.';
    END IF;
    PERFORM set_config('lock_timeout', '3s', true);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', states);

    -- The key. If this has run before, our comment on device_id names it.
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

    -- Moorline inserts device_id and the trigger adds the key: any other required column needs a default.
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

    -- The columns. The type of an existing one changes only if every value and every later INSERT still fits.
    FOR wanted IN
        SELECT w.name, w.type, w.rest, w.meaning FROM (VALUES
            ('device_id', 'text', '', format('follows %s', key)),
            ('active_agent', 'character varying', '(50)', 'the agent that holds the session'),
            ('locked_at', 'timestamp with time zone', '', 'when the agent took the session'),
            ('session_ttl', 'integer', ' NOT NULL DEFAULT 86400 CHECK (session_ttl > 0)',
                'seconds after the last activity until the lock expires'),
            ('last_active_at', 'timestamp with time zone', '', 'the last activity'),
            ('last_turn_no', 'bigint', ' NOT NULL DEFAULT 0', 'the last committed turn'),
            ('fence', 'bigint', ' NOT NULL DEFAULT 0', 'the number of the last claim'),
            ('claim_id', 'uuid', '', 'the open turn; null if there is none'),
            ('claimed_at', 'timestamp with time zone', '', 'when the open turn was claimed'),
            ('lease_until', 'timestamp with time zone', '', 'when the lease of the open turn ends'),
            ('heads', 'jsonb', ' NOT NULL DEFAULT ''{}''', 'the last committed checkpoint of each namespace'),
            ('arrivals', 'bigint', ' NOT NULL DEFAULT 0', 'the last arrival number given to a message'),
            ('last_worker', 'text', '', 'the process that claimed the last turn'),
            ('worker_turns', 'integer', ' NOT NULL DEFAULT 0', 'how many turns it has claimed in a row'),
            ('open_messages', 'text[]', '', 'the messages of the open turn'),
            ('unfinished', 'boolean', ' NOT NULL DEFAULT false', 'whether a failed message has effects on record')
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

    -- The values. The table's own triggers are disabled meanwhile, because no user changes rows here.
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

    -- The indexes. ON CONFLICT (device_id) needs a unique index on that column alone, never deferred.
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
            home, 'Added by Moorline: one row for each device');
    END IF;
    FOREACH item IN ARRAY ARRAY['active_agent', 'locked_at'] LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', home, 'idx_conversation_states_' || item)) IS NOT NULL;
        EXECUTE format('CREATE INDEX %1$I ON %2$s (%3$I) WHERE %3$I IS NOT NULL',
            'idx_conversation_states_' || item, states, item);
        EXECUTE format('COMMENT ON INDEX %I.%I IS %L',
            home, 'idx_conversation_states_' || item, 'Added by Moorline: the rows that are locked');
    END LOOP;

    -- The triggers, needed only where an old backend writes too.
    IF key <> 'device_id' THEN
        EXECUTE format($function$
            CREATE OR REPLACE FUNCTION %1$I.moorline_follow_key() RETURNS trigger LANGUAGE plpgsql AS $body$
            BEGIN
                -- One insert at a time for each key: otherwise two rows could both find it free.
                PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(
                    pg_catalog.concat('conversation_states ', coalesce(NEW.device_id, NEW.%2$I::text)), 0));
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
                    OR NEW.locked_at = OLD.locked_at
                        AND NEW.active_agent::text IS DISTINCT FROM OLD.active_agent::text
                THEN
                    NEW.locked_at := pg_catalog.clock_timestamp();
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
    PERFORM pg_catalog.set_config('search_path', before, true);
END
$adopt$;

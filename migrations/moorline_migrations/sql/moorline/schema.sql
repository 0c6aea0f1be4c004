-- The whole schema of the component "moorline" as its numbered files leave it. This file is for reading: `moorline
-- migrate` runs the numbered files, and a test checks that both make the same schema. `@schema` stands for the schema's
-- name.
--
-- Conversations. A device is the key of one conversation, and device_id leads every primary key: only sweeps and
-- statistics read across devices.
--
--   conversation_states       one row for each device: which agent holds the session (the lock), since when and for how
--                             long; the open turn, if any; and the current checkpoint of each namespace (heads)
--   conversation_messages     one row for each incoming message: the queue, dedupe, and what a rerun needs
--   conversation_turns        one row for each committed turn: the reply, its agent and its cost. The transcript
--   conversation_checkpoints  LangGraph's checkpoints: the manager graph's, and those of subgraphs by namespace
--   conversation_values       channel values of checkpoints, each version stored once
--   conversation_writes       what tasks wrote on top of a checkpoint
--   conversation_effects      the journal: effects of tools and model answers, by their place in the turn, so that an
--                             effect happens once
--   conversation_facts        what agents remember about a person, each fact by its namespace and key. Those with the
--                             empty device_id belong to no conversation
--   conversation_files        what came with messages, once by the SHA-256 of its bytes; stored_at is when it came last
--   conversation_sessions     one row for each session that has ended: whose, since when, until when and why. `position`
--                             tells those apart that ended at the same moment
--   conversation_days         turns and tokens of a device by day (UTC), agent and model, added up by cleanups from the
--                             turns up to rolled_up_to. Turns are counted where the model is empty; the manager is the
--                             empty agent
--   moorline_days             what conversation_days adds up to over all devices, for days before rolled_up_to; `people`
--                             counts the devices with turns. Rows with the same keys are to be added: an erasure
--                             appends what it takes off. The agent `*` stands for all together
--   expired_sessions          a view of the expired locks
--   turn_figures              a view of what conversation_days adds up
--   moorline_cleanups         one row, by whose lease one process at a time cleans up
--   moorline_keys             secrets that all processes share: `log` is the key for the device tags in logs, `token`
--                             the one for device tokens
--   moorline_people           which conversation a person has, by the word of the application's server
--   moorline_codes            link codes, as keyed hashes: one for each device that has asked for one
--   moorline_tries            how many link codes were wrong: by device, by network address and in all, as keyed hashes
--   moorline_revocations      from which generation on a device's tokens are accepted, for devices whose tokens were
--                             revoked; without a row, from 0
--
-- A lock is live while active_agent is set and less than so many seconds have passed since the later of
-- last_active_at and locked_at, on the database's clock; greatest() ignores nulls, so a lock by a backend that knows
-- only active_agent and locked_at counts as well. How many says call_ttl, else person_ttl, else session_ttl; call_ttl is
-- what the call that set the lock asked for, and goes with it. With session_until, which goes with it too, the lock is
-- live until that moment and no longer, whatever else is said here. locked_at changes only with the lock.
-- last_active_at has no index, and the fillfactor leaves free space, so that a turn's update stays within its page
-- (HOT).
--
-- A turn is claimed by writing claim_id, claimed_at and lease_until into the row of its device. The claim stands as
-- long as the row has its claim_id; otherwise its heartbeats, tool transactions, release and commit are refused. A
-- repeated commit is recognised by the claim_id in conversation_turns. What a turn writes also carries its fence (null:
-- written outside a turn), a number that only orders a device's claims. arrivals counts the messages of a device,
-- last_turn_no its committed turns; heads maps a namespace to the ID of the last checkpoint that a committed turn left
-- there. open_messages are the messages of the open turn. last_worker and worker_turns say which process claimed last
-- and how many turns in a row: after some it gives way to others. unfinished is set when a message with effects on
-- record has failed; a claim then brings those effects. It may stay set after the last of them is gone, but is never
-- unset while one remains.
--
-- A turn that asks has the status `interrupted`. Its question waits for as long as the turn is the device's last and
-- keeps that status: the next turn answers or closes it, and moorline_cancel closes it without a turn. `run` says where
-- the run that it stopped began. usage of a message is what its failed attempts cost; a turn's usage includes it.
-- `stopped` says that the person has stopped the message's turn: whoever runs it ends it, and it stays stopped if it has
-- to run again.
--
-- `changes` of a turn says how it changed the lock and why; null: not at all. A turn with rewound_at was rewound then:
-- the conversation goes on as if it had not been. A checkpoint with turn_no 0 only holds what values of later ones are
-- made of.
--
-- A namespace of facts is its labels, each with a full stop after it, and begins with the agent's name if device_id is a
-- conversation. A fact with a `ttl`, in minutes, expires at expires_at.
--
-- The text of a message that came with files ends with what refers to them: the character 26 and a JSON array of their
-- hash, type, name and size. No text has that character before a bracket: where a person wrote it, four hexadecimal
-- digits follow.
--
-- A lock that is set or cleared while a turn is open is not the turn's to undo: the commit leaves it as it is. It is
-- recognised by a time after claimed_at, or by another agent than the turn was claimed with.
--
-- A device is an address that leads to a conversation: to its own, or to the one in leads_to, which it joined at
-- linked_at. A row of conversation_states is both the record of the address and that of the conversation of this key.
-- Exactly one step is followed: if B leads to A, B's messages are in A's conversation, wherever A's own lead.
-- A message that came by such an address is stored under the conversation's key; `address` is the device that sent it,
-- and its message_id is the device, the character 31 and the ID that the device gave it. `earlier` are the other
-- conversations in which messages of the device may be stored, and earlier_marks has the marks of these messages: one
-- whose marks are missing is not there (null: nobody knows). given_away says that others were left in the device's own
-- conversation, so that it never leads there again. A row that moorline_new_conversation has made leads to nobody and has
-- no linked_at. `notices` of a conversation says by device what it is told with its next reply; a claim moves it into
-- `notice` of the message. A message with `joins` is no message: it stands in the queue for the device that joins this
-- conversation, and is carried out when it is its turn.
--
-- A token names its device, a generation and when it was issued. A revocation raises the device's generation to the
-- microseconds of the moment, so that it exceeds every one before, even those of rows that are gone: a row is no longer
-- needed when all tokens that it refuses have expired. `device` is a keyed hash of the device's ID, because the row
-- outlasts an erasure.
--
-- A function is never changed in its numbered file. A later file replaces it under the same name if older code can
-- still call it; otherwise it adds a successor (moorline_begin_2), because two versions of the code may run on one
-- schema.
--
-- A backend that already has a conversation_states keeps it: see add_session_lock_fields.sql for what is added. Its
-- device_id may then be a uuid or a varchar, and null in rows that Moorline never touches.
--
-- moorline_schema has a row for each applied version of a component. Code runs on its own version and on newer ones,
-- unless the oldest_code of one of those is a version that the code does not know. erase_function(device text) returns
-- nothing and erases what the component has of a device; export_function(device text) returns it as jsonb. Both are in
-- this schema.

CREATE TABLE @schema.moorline_schema (
    component       text,
    version         integer,
    name            text NOT NULL,
    oldest_code     integer NOT NULL,
    erase_function  text,
    export_function text,
    applied_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (component, version)
);

CREATE TABLE @schema.conversation_states (
    device_id      text PRIMARY KEY,
    active_agent   varchar(50),
    locked_at      timestamptz,
    session_ttl    integer NOT NULL DEFAULT 86400 CHECK (session_ttl > 0),
    last_active_at timestamptz,
    last_turn_no   bigint NOT NULL DEFAULT 0,
    fence          bigint NOT NULL DEFAULT 0,
    claim_id       uuid,
    claimed_at     timestamptz,
    lease_until    timestamptz,
    heads          jsonb NOT NULL DEFAULT '{}',
    arrivals       bigint NOT NULL DEFAULT 0,
    last_worker    text,
    worker_turns   integer NOT NULL DEFAULT 0,
    open_messages  text[],
    unfinished     boolean NOT NULL DEFAULT false,
    leads_to       text,
    linked_at      timestamptz,
    earlier        text[],
    given_away     boolean,
    notices        jsonb,
    call_ttl       integer CHECK (call_ttl > 0),
    person_ttl     integer CHECK (person_ttl > 0),
    session_until  timestamptz,
    earlier_marks  bytea
) WITH (fillfactor = 70);

CREATE INDEX idx_conversation_states_active_agent ON @schema.conversation_states (active_agent)
    WHERE active_agent IS NOT NULL;
CREATE INDEX idx_conversation_states_locked_at ON @schema.conversation_states (locked_at)
    WHERE locked_at IS NOT NULL;
CREATE INDEX idx_conversation_states_leads_to ON @schema.conversation_states (leads_to) WHERE leads_to IS NOT NULL;

-- The comments that adoption would put on a backend's own table; remove_session_lock_fields.sql goes by them.
COMMENT ON TABLE @schema.conversation_states IS 'Made by Moorline: one row for each device';
COMMENT ON COLUMN @schema.conversation_states.active_agent IS 'Added by Moorline: the agent that holds the session';
COMMENT ON COLUMN @schema.conversation_states.locked_at IS 'Added by Moorline: when the agent took the session';
COMMENT ON COLUMN @schema.conversation_states.session_ttl IS 'Added by Moorline: seconds after the last activity until the lock expires';
COMMENT ON COLUMN @schema.conversation_states.last_active_at IS 'Added by Moorline: the last activity';
COMMENT ON COLUMN @schema.conversation_states.last_turn_no IS 'Added by Moorline: the last committed turn';
COMMENT ON COLUMN @schema.conversation_states.fence IS 'Added by Moorline: the number of the last claim';
COMMENT ON COLUMN @schema.conversation_states.claim_id IS 'Added by Moorline: the open turn; null if there is none';
COMMENT ON COLUMN @schema.conversation_states.claimed_at IS 'Added by Moorline: when the open turn was claimed';
COMMENT ON COLUMN @schema.conversation_states.lease_until IS 'Added by Moorline: when the lease of the open turn ends';
COMMENT ON COLUMN @schema.conversation_states.heads IS 'Added by Moorline: the last committed checkpoint of each namespace';
COMMENT ON COLUMN @schema.conversation_states.arrivals IS 'Added by Moorline: the last arrival number given to a message';
COMMENT ON COLUMN @schema.conversation_states.last_worker IS 'Added by Moorline: the process that claimed the last turn';
COMMENT ON COLUMN @schema.conversation_states.worker_turns IS 'Added by Moorline: how many turns it has claimed in a row';
COMMENT ON COLUMN @schema.conversation_states.open_messages IS 'Added by Moorline: the messages of the open turn';
COMMENT ON COLUMN @schema.conversation_states.unfinished IS 'Added by Moorline: whether a failed message has effects on record';
COMMENT ON COLUMN @schema.conversation_states.leads_to IS 'Added by Moorline: the conversation that the device joined';
COMMENT ON COLUMN @schema.conversation_states.linked_at IS 'Added by Moorline: when the device joined it';
COMMENT ON COLUMN @schema.conversation_states.earlier IS 'Added by Moorline: the conversations that the device has left';
COMMENT ON COLUMN @schema.conversation_states.given_away IS 'Added by Moorline: whether its own conversation was left to others';
COMMENT ON COLUMN @schema.conversation_states.notices IS 'Added by Moorline: what each device is told with its next reply';
COMMENT ON COLUMN @schema.conversation_states.call_ttl IS 'Added by Moorline: the TTL that whoever set the lock asked for';
COMMENT ON COLUMN @schema.conversation_states.person_ttl IS 'Added by Moorline: the TTL of this person''s sessions';
COMMENT ON COLUMN @schema.conversation_states.session_until IS 'Added by Moorline: when the session ends, whatever happens';
COMMENT ON COLUMN @schema.conversation_states.earlier_marks IS 'Added by Moorline: marks of its messages in those';
COMMENT ON INDEX @schema.idx_conversation_states_active_agent IS 'Added by Moorline: the rows that are locked';
COMMENT ON INDEX @schema.idx_conversation_states_locked_at IS 'Added by Moorline: the rows that are locked';
COMMENT ON INDEX @schema.idx_conversation_states_leads_to IS 'Added by Moorline: the devices that joined a conversation';

CREATE TABLE @schema.conversation_messages (
    device_id    text,
    message_id   text,
    turn_no      bigint,
    arrival      bigint NOT NULL,
    text         text NOT NULL,
    resume       jsonb,
    values       jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'interrupted', 'dead')),
    attempts     integer NOT NULL DEFAULT 0,
    claim_id     uuid,
    waiter_until timestamptz,
    worker       text,
    merge        boolean NOT NULL DEFAULT false,
    error        text,
    received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    queued       boolean NOT NULL GENERATED ALWAYS AS (status = 'waiting') STORED,
    usage        jsonb,
    stopped      boolean NOT NULL DEFAULT false,
    address      text,
    joins        text,
    notice       text,
    PRIMARY KEY (device_id, message_id)
) WITH (fillfactor = 85);

CREATE INDEX conversation_messages_queued ON @schema.conversation_messages (device_id, arrival) WHERE queued;
CREATE INDEX conversation_messages_address ON @schema.conversation_messages (address) WHERE address IS NOT NULL;

CREATE TABLE @schema.conversation_turns (
    device_id    text,
    turn_no      bigint,
    claim_id     uuid NOT NULL,
    fence        bigint NOT NULL,
    agent        varchar(50),
    reply        text NOT NULL,
    -- What a program gets beside the reply: of a turn that asks its question, {"id", "value"}; of an agent whose answers
    -- are structured {"output"}.
    interrupt    jsonb,
    handoffs     text[] NOT NULL DEFAULT '{}',
    usage        jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL CHECK (status IN ('done', 'interrupted')),
    attempts     integer NOT NULL,
    started_at   timestamptz NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    run          jsonb,
    changes      jsonb,
    rewound_at   timestamptz,
    PRIMARY KEY (device_id, turn_no)
);

-- No foreign keys between the next three: a task's writes may arrive before their checkpoint.
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
    agent       text,
    name        text NOT NULL,
    intent      jsonb NOT NULL,
    result      jsonb,
    turn_no     bigint NOT NULL,
    fence       bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (device_id, message_id, position)
);

CREATE TABLE @schema.conversation_facts (
    device_id  text,
    namespace  text COLLATE "C",
    key        text,
    value      jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ttl        double precision,
    expires_at timestamptz,
    PRIMARY KEY (device_id, namespace, key)
);

CREATE INDEX conversation_facts_expires_at ON @schema.conversation_facts (expires_at) WHERE expires_at IS NOT NULL;

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

CREATE TABLE @schema.conversation_sessions (
    device_id text,
    ended_at  timestamptz,
    position  integer,
    agent     text NOT NULL,
    locked_at timestamptz NOT NULL,
    why       text NOT NULL CHECK (
        why IN ('released', 'handed_over', 'started_over', 'taken', 'cleared', 'expired')),
    PRIMARY KEY (device_id, ended_at, position)
);

CREATE INDEX conversation_sessions_ended_at ON @schema.conversation_sessions
    USING brin (ended_at) WITH (autosummarize = on);

CREATE TABLE @schema.conversation_days (
    device_id     text,
    day           date,
    agent         text,
    model         text,
    turns         bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    PRIMARY KEY (device_id, day, agent, model)
);

CREATE INDEX conversation_days_day ON @schema.conversation_days USING brin (day) WITH (autosummarize = on);

CREATE INDEX conversation_turns_committed_at ON @schema.conversation_turns
    USING brin (committed_at) WITH (autosummarize = on);

CREATE TABLE @schema.moorline_days (
    day           date NOT NULL,
    agent         text NOT NULL,
    model         text NOT NULL,
    turns         bigint NOT NULL,
    people        bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL
);

CREATE INDEX moorline_days_day ON @schema.moorline_days (day);

CREATE TABLE @schema.moorline_cleanups (
    name         text PRIMARY KEY,
    claim_id     uuid,
    lease_until  timestamptz,
    begun_at     timestamptz,
    rolled_up_to timestamptz
);

INSERT INTO @schema.moorline_cleanups (name) VALUES ('cleanup');

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

CREATE TABLE @schema.moorline_keys (
    name text PRIMARY KEY,
    key  bytea NOT NULL
);

-- Two random UUIDs give 244 random bits.
INSERT INTO @schema.moorline_keys (name, key) VALUES (
    'log',
    pg_catalog.decode(pg_catalog.replace(
        pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex'));

INSERT INTO @schema.moorline_keys (name, key) VALUES (
    'token',
    pg_catalog.decode(pg_catalog.replace(
        pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex'));

CREATE TABLE @schema.moorline_revocations (
    device     bytea PRIMARY KEY,
    generation bigint NOT NULL,
    revoked_at timestamptz NOT NULL
);

CREATE VIEW @schema.expired_sessions AS
SELECT s.device_id::text AS device_id,
       s.active_agent,
       s.locked_at,
       coalesce(
           s.session_until,
           greatest(s.last_active_at, s.locked_at)
               + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
           AS expired_at
FROM @schema.conversation_states s
WHERE s.device_id IS NOT NULL
  AND s.active_agent IS NOT NULL
  AND coalesce(
      pg_catalog.clock_timestamp() >= s.session_until,
      pg_catalog.clock_timestamp() - greatest(s.last_active_at, s.locked_at)
          >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');

-- What conversation_days counts, turn by turn: each turn once, without a model, and the tokens of each model that it
-- asked. Tokens that are no number, or too large to be true, are not counted.
CREATE VIEW @schema.turn_figures AS
SELECT t.device_id, t.committed_at, coalesce(t.agent, '')::text AS agent, ''::text AS model, 1::bigint AS turns,
    0::bigint AS input_tokens, 0::bigint AS output_tokens
FROM @schema.conversation_turns t
UNION ALL
SELECT t.device_id, t.committed_at, c.agent, c.model, 0::bigint,
    CASE WHEN c.input ~ '^[0-9]{1,12}$'::text THEN c.input::bigint ELSE 0::bigint END,
    CASE WHEN c.output ~ '^[0-9]{1,12}$'::text THEN c.output::bigint ELSE 0::bigint END
FROM @schema.conversation_turns t
CROSS JOIN LATERAL pg_catalog.jsonb_each(
    CASE WHEN pg_catalog.jsonb_typeof(t.usage) = 'object'::text THEN t.usage ELSE '{}'::jsonb END
) AS m (model, counts)
CROSS JOIN LATERAL (
    SELECT m.model, coalesce(t.agent, '')::text AS agent, m.counts->>0 AS input, m.counts->>1 AS output
    WHERE pg_catalog.jsonb_typeof(m.counts) = 'array'::text
    UNION ALL
    SELECT m.model, a.key, a.value->>0, a.value->>1
    FROM pg_catalog.jsonb_each(
        CASE WHEN pg_catalog.jsonb_typeof(m.counts) = 'object'::text THEN m.counts ELSE '{}'::jsonb END
    ) AS a (key, value)
) c
WHERE t.usage <> '{}'::jsonb;

-- The functions. A turn is one call of moorline_begin and one of moorline_commit; each takes the turns of many
-- devices at once.
--
-- A batch locks the rows of its devices one by one, in the order of their IDs, and skips a row that another transaction
-- has locked: two batches never wait for each other, and one locked device holds up no other. Each item has its own
-- outcome; "locked" means that nothing was done for it and that it may ask again.
--
-- Every statement of a VOLATILE plpgsql function sees what was committed before that statement began, so what is read
-- after locking a device's row is the state that its last turn left.
--
-- Nothing that others put into a schema of the search_path may run with our rights. Functions are called with their
-- schema, and the operands of an operator have exactly the types of one in pg_catalog. The key of an adopted
-- conversation_states may have another type, so it is compared with OPERATOR(pg_catalog.=). unnest of several arrays
-- needs no schema: the parser always takes pg_catalog's.

-- Key: the device ID if the key of conversation_states can hold it (it may be a uuid or a short text), else NULL,
-- because such a device has no row there.
CREATE FUNCTION @schema.moorline_key(device text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE;
BEGIN
    IF pg_catalog.pg_typeof(key) OPERATOR(pg_catalog.=) 'pg_catalog.text'::regtype THEN
        RETURN device;
    END IF;
    BEGIN
        key := device;
    EXCEPTION WHEN invalid_text_representation OR string_data_right_truncation THEN
        RETURN NULL;
    END;
    RETURN device;
END
$$;

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

-- Hold: locks the device's row until the transaction ends, so that removals run one after another and never during a
-- commit or a tool's transaction. If there is no row, its checkpoints are locked instead: those that are there once the
-- locks are given, because a removal before this one may have left only newer ones.
CREATE FUNCTION @schema.moorline_hold(device text) RETURNS void
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

-- Whether this interrupt still waits for an answer: the device's last turn asked, and no turn has followed.
CREATE FUNCTION @schema.moorline_asks(device text, last_turn_no bigint, interrupt_id text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM @schema.conversation_turns t
        WHERE t.device_id = device AND t.turn_no = last_turn_no AND t.status = 'interrupted'
            AND t.interrupt->>'id'::text = interrupt_id);
END
$$;

-- Unfinished: the effects of messages that wait to be tried again, in order; NULL if there are none. A database tool
-- that refused did nothing; the outcome of an outside call without a result is unknown.
CREATE FUNCTION @schema.moorline_unfinished(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object(
                'message_id', e.message_id, 'agent', e.agent, 'name', e.name, 'intent', e.intent, 'result', e.result)
            ORDER BY m.arrival, e.position)
        FROM @schema.conversation_messages m
        JOIN @schema.conversation_effects e ON e.device_id = device AND e.message_id = m.message_id
        WHERE m.device_id = device AND m.queued AND e.kind <> 'answer'
            AND coalesce(e.kind = 'outside' OR NOT e.result ? 'refused'::text, true));
END
$$;

-- Whether these messages have effects, as moorline_unfinished counts them.
CREATE FUNCTION @schema.moorline_effects_kept(device text, messages text[]) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM @schema.conversation_effects e
        WHERE e.device_id = device AND e.message_id = ANY (messages) AND e.kind <> 'answer'
            AND coalesce(e.kind = 'outside' OR NOT e.result ? 'refused'::text, true));
END
$$;

-- Retry after: the seconds after which the device's turn is likely to be over. That is what its last turns took, less
-- the time since this one was claimed; no longer than the lease, but at least half a second. For a device without
-- earlier turns a turn is taken to last three seconds.
CREATE FUNCTION @schema.moorline_retry_after(
    device text, claimed_at timestamptz, lease_until timestamptz, moment timestamptz
) RETURNS double precision
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    usual double precision;
    passed double precision := pg_catalog.date_part('epoch', moment - coalesce(claimed_at, moment));
    lease double precision := pg_catalog.date_part('epoch', lease_until - moment);
BEGIN
    SELECT pg_catalog.avg(pg_catalog.date_part('epoch', t.committed_at - t.started_at)) INTO usual
        FROM (
            SELECT n.started_at, n.committed_at
            FROM @schema.conversation_turns n
            WHERE n.device_id = device
            ORDER BY n.turn_no DESC
            LIMIT 5
        ) t;
    usual := coalesce(usual, 3::double precision) - passed;
    RETURN greatest(least(usual, lease), 0.5::double precision);
END
$$;

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
-- that wait and never ran go along in their order with their files, and the other devices there are told. `state` is
-- the row of the queue's device, which the caller has locked. Waits for no row but a file's. Returns
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
                        AND (message IS NULL AND m.waiter_until IS NOT NULL
                            OR message IS NOT NULL AND m.waiter_until > moment)
                        AND (held IS NULL OR coalesce(m.address, device) <> held)
                    ORDER BY coalesce(fair AND m.worker IS NOT DISTINCT FROM state.last_worker, false), m.arrival
                    LIMIT 1;
            END IF;
            IF NOT FOUND THEN
                EXIT WHEN held IS NOT NULL;
                RETURN '{"outcome": "idle"}'::jsonb;
            ELSIF message IS NULL AND first.waiter_until > moment THEN
                -- Somebody waits with it and will run it; what a crashed process left does not pass it.
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

-- Claim, as the code of version 4 calls it. It knows neither devices that lead elsewhere nor messages of other devices:
-- to that code, their conversations are locked. Version 6 drops it, with moorline_begin.
CREATE FUNCTION @schema.moorline_claim(
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

-- Claimed: what a turn starts from if its messages were stored before: those messages, the journal if they ran before,
-- and whether one of them was stopped.
CREATE FUNCTION @schema.moorline_claimed(
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

-- Answer: what a won claim is answered with.
CREATE FUNCTION @schema.moorline_answer(
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
                AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                    < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
            THEN s.active_agent END,
        'heads', s.heads);
END
$$;

-- Record session: a session that has ended, in the place `position` of those that ended at the same moment. Returns it
-- as it is told: agent, why, and for how many seconds it lasted.
CREATE FUNCTION @schema.moorline_record_session(
    device text, agent text, since timestamptz, ended timestamptz, why text, place integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    INSERT INTO @schema.conversation_sessions (device_id, ended_at, position, agent, locked_at, why)
        VALUES (device, ended, place, agent, least(since, ended), why)
        ON CONFLICT DO NOTHING;
    RETURN pg_catalog.jsonb_build_object(
        'agent', agent, 'why', why, 'seconds', pg_catalog.date_part('epoch', ended - least(since, ended)));
END
$$;

-- End session: records that the lock in the row ends at this moment, or that it expired before. Returns the session as
-- it is told; null if the row has no lock.
CREATE FUNCTION @schema.moorline_end_session(s @schema.conversation_states, why text, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    since timestamptz := coalesce(s.locked_at, s.last_active_at, moment);
    expired timestamptz;
BEGIN
    IF s.active_agent IS NULL THEN
        RETURN NULL;
    ELSIF s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        RETURN @schema.moorline_record_session(s.device_id::text, s.active_agent::text, since, moment, why, 0);
    END IF;
    expired := coalesce(s.session_until, greatest(s.last_active_at, s.locked_at)
        + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');
    RETURN @schema.moorline_record_session(
        s.device_id::text, s.active_agent::text, since, coalesce(expired, moment), 'expired', 0);
END
$$;

-- Delta channels: the channels of a checkpoint that are stored as the changes of each step. In the metadata LangGraph
-- counts the steps since each was stored whole.
CREATE FUNCTION @schema.moorline_delta_channels(metadata jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    counters jsonb := metadata->'counters_since_delta_snapshot'::text;
BEGIN
    IF counters IS NULL OR pg_catalog.jsonb_typeof(counters) <> 'object' THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT pg_catalog.array_agg(k.channel) FROM pg_catalog.jsonb_object_keys(counters) AS k (channel));
END
$$;

-- Ancestors: the checkpoints whose writes make up the value of a delta channel at a checkpoint, nearest first, up to
-- the first that has the channel's value stored. Each step looks its parent up by key, however few checkpoints are
-- stored: OFFSET 0 keeps the planner from reading all of them at each step. A line of parents that leads back into
-- itself is refused (ML004). It is noticed by a mark that is put down at each power of two steps (Brent).
CREATE FUNCTION @schema.moorline_ancestors(device text, ns text, id text, delta_channel text) RETURNS text[]
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

-- Checkpoint: a checkpoint with the values of its channels and the writes on top of it, one array for each column. Each
-- value is looked up by its key, because the plan of a join would depend on guesses of how much a device has stored.
CREATE FUNCTION @schema.moorline_checkpoint(device text, ns text, id text) RETURNS TABLE (
    checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[]
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata, c.versions,
            v.channels, v.versions, v.types, v.blobs, w.tasks, w.idxs, w.paths, w.channels, w.types, w.blobs
        FROM @schema.conversation_checkpoints c
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(n.channel) AS channels, pg_catalog.array_agg(n.version) AS versions,
                pg_catalog.array_agg(s.type) AS types, pg_catalog.array_agg(s.blob) AS blobs
            FROM pg_catalog.jsonb_each_text(c.versions) AS n (channel, version)
            CROSS JOIN LATERAL (
                SELECT sv.type, sv.blob
                FROM @schema.conversation_values sv
                WHERE sv.device_id = device AND sv.checkpoint_ns = ns
                    AND sv.channel = n.channel AND sv.version = n.version
                LIMIT 1
            ) s
        ) v
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(sw.task_id) AS tasks, pg_catalog.array_agg(sw.idx) AS idxs,
                pg_catalog.array_agg(sw.task_path) AS paths, pg_catalog.array_agg(sw.channel) AS channels,
                pg_catalog.array_agg(sw.type) AS types, pg_catalog.array_agg(sw.blob) AS blobs
            FROM @schema.conversation_writes sw
            WHERE sw.device_id = device AND sw.checkpoint_ns = ns AND sw.checkpoint_id = id
        ) w
        WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = id;
END
$$;

-- History: what makes up the values of the given delta channels at a checkpoint: the writes of the ancestors, and the
-- stored value that they start from. depth counts away from the checkpoint; rows without a task are the stored values.
CREATE FUNCTION @schema.moorline_history(device text, ns text, id text, channels text[]) RETURNS TABLE (
    depth integer, checkpoint_id text, task_id text, idx integer, task_path text, channel text, version text,
    type text, blob bytea
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    own text;
    ids text[];
    oldest text;
BEGIN
    FOREACH own IN ARRAY channels LOOP
        ids := @schema.moorline_ancestors(device, ns, id, own);
        CONTINUE WHEN ids IS NULL;
        oldest := ids[pg_catalog.cardinality(ids)];
        RETURN QUERY
            SELECT pg_catalog.array_position(ids, w.checkpoint_id), w.checkpoint_id, w.task_id, w.idx, w.task_path,
                w.channel, NULL::text, w.type, w.blob
            FROM @schema.conversation_writes w
            WHERE w.device_id = device AND w.checkpoint_ns = ns AND w.checkpoint_id = ANY (ids) AND w.channel = own;
        RETURN QUERY
            SELECT pg_catalog.cardinality(ids), oldest, NULL::text, NULL::integer, NULL::text, v.channel, v.version,
                v.type, v.blob
            FROM @schema.conversation_checkpoints c
            JOIN @schema.conversation_values v
                ON v.device_id = device AND v.checkpoint_ns = ns AND v.channel = own AND v.version = c.versions->>own
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = oldest;
    END LOOP;
END
$$;

-- Begin: makes the claims of a batch, each at one place of the arrays, and returns with each what its run reads first:
-- the head of the manager and that of the agent that holds the session, each with what its delta channels are made of.
-- There is one row for each head, or a single row with only the claim's answer. A head that the caller already knows (a
-- JSON object of heads by namespace) is left out.
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

-- Keep facts: stores a list of facts in its order: each with namespace, key, value (null: deletes the fact) and ttl in
-- minutes. One with `read` is a fact that was read: if it expires, it now does so after its whole time to live again.
-- If live_only, one that has expired already stays so.
CREATE FUNCTION @schema.moorline_keep_facts(device text, facts jsonb, moment timestamptz, live_only boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    fact record;
    expiry timestamptz;
BEGIN
    FOR fact IN
        SELECT n.namespace, n.key, n.value, n.ttl, n.read
        FROM pg_catalog.jsonb_array_elements(facts) WITH ORDINALITY AS e (item, position)
        CROSS JOIN LATERAL pg_catalog.jsonb_to_record(e.item) AS n (
            namespace text, key text, value jsonb, ttl double precision, read boolean)
        ORDER BY e.position
    LOOP
        IF fact.read THEN
            UPDATE @schema.conversation_facts f
                SET expires_at = moment + f.ttl * interval '1 minute'
                WHERE f.device_id = device AND f.namespace = fact.namespace AND f.key = fact.key
                    AND f.ttl IS NOT NULL AND (NOT live_only OR f.expires_at > moment);
        ELSIF fact.value IS NULL THEN
            DELETE FROM @schema.conversation_facts f
                WHERE f.device_id = device AND f.namespace = fact.namespace AND f.key = fact.key;
        ELSE
            expiry := moment + fact.ttl * interval '1 minute';
            INSERT INTO @schema.conversation_facts AS f
                (device_id, namespace, key, value, created_at, updated_at, ttl, expires_at)
                VALUES (device, fact.namespace, fact.key, fact.value, moment, moment, fact.ttl, expiry)
                ON CONFLICT (device_id, namespace, key) DO UPDATE
                SET value = excluded.value,
                    updated_at = excluded.updated_at,
                    ttl = excluded.ttl,
                    expires_at = excluded.expires_at;
        END IF;
    END LOOP;
END
$$;

-- Commit: commits a batch of turns, each at one place of the arrays. Outcomes: committed, lock_kept (committed, except
-- that somebody else set or cleared the lock meanwhile), stale (the device has another claim or none, and nothing was
-- written) or locked. Idempotent: a turn that was committed before, and whose acknowledgement was lost, answers
-- committed again. `ended` are the sessions that ended with the turn, as they are told; null if none did. Checkpoints,
-- values and writes come as one array for each column; the first array of each holds the place of the turn. Rows with
-- the same keys may have been left by the turn before, which stopped to ask.
CREATE FUNCTION @schema.moorline_commit_2(
    devices text[], claims uuid[], fences bigint[], turns text[], keep_turns integer,
    c_place integer[], c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[],
    c_versions text[],
    v_place integer[], v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_place integer[], w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[],
    w_type text[], w_blob bytea[]
) RETURNS TABLE (place integer, outcome text, ended jsonb)
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
    renewed boolean;
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
        ended := NULL;
        SELECT t.* INTO STRICT turn
            FROM pg_catalog.jsonb_to_record(turns[own]::jsonb) AS t (
                turn_no bigint, status text, agent text, reply text, handoffs text[], usage jsonb, interrupt jsonb,
                attempts integer, started_at timestamptz, active_agent text, lock_taken boolean, session_ttl integer,
                call_ttl integer, session_until timestamptz, ended jsonb, heads jsonb, messages text[],
                journal_of text, holder text, run jsonb, changes jsonb, facts jsonb);
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
            SELECT t.committed_at INTO moment
                FROM @schema.conversation_turns t
                WHERE t.device_id = device AND t.turn_no = turn.turn_no AND t.claim_id = claim;
            IF FOUND THEN
                outcome := 'committed';
                -- An expired lock that the turn found has ended before.
                ended := (
                    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                        'agent', n.agent, 'why', n.why, 'seconds',
                        pg_catalog.date_part('epoch', n.ended_at - n.locked_at)) ORDER BY n.position)
                    FROM @schema.conversation_sessions n
                    WHERE n.device_id = device AND n.ended_at = moment);
            ELSE
                outcome := 'stale';
            END IF;
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
        moment := pg_catalog.clock_timestamp();
        IF NOT kept AND state.active_agent IS NOT NULL AND turn.holder IS NULL THEN
            ended := pg_catalog.jsonb_build_array(@schema.moorline_end_session(state, 'expired', moment));
        END IF;
        IF NOT kept AND turn.ended IS NOT NULL THEN
            -- The first may have begun before the turn.
            ended := coalesce(ended, '[]'::jsonb) || (
                SELECT pg_catalog.jsonb_agg(@schema.moorline_record_session(
                    device, n.agent,
                    CASE WHEN n.position = 1::bigint AND n.agent = turn.holder
                        THEN coalesce(state.locked_at, state.last_active_at, moment) ELSE moment END,
                    moment, n.why, n.position::integer))
                FROM (
                    SELECT e.item->>'agent'::text AS agent, e.item->>'why'::text AS why, e.position
                    FROM pg_catalog.jsonb_array_elements(turn.ended) WITH ORDINALITY AS e (item, position)
                ) n);
        ELSIF NOT kept AND turn.holder IS NOT NULL AND turn.active_agent IS DISTINCT FROM turn.holder THEN
            -- Code of before these figures does not say why.
            ended := pg_catalog.jsonb_build_array(@schema.moorline_record_session(
                device, turn.holder, coalesce(state.locked_at, state.last_active_at, moment), moment,
                CASE WHEN turn.active_agent IS NULL THEN 'cleared' ELSE 'taken' END, 1));
        END IF;
        RETURN NEXT;
        number := state.last_turn_no + 1;
        numbers[own] := number;
        fence_of_turn := fences[own];
        UPDATE @schema.conversation_messages m
            SET status = turn.status, turn_no = number, claim_id = NULL, worker = NULL, values = '{}', error = NULL,
                usage = NULL
            WHERE m.device_id = device AND m.message_id = ANY (turn.messages)
                AND m.claim_id = claim AND m.status = 'running';
        still := state.unfinished AND @schema.moorline_unfinished(device) IS NOT NULL;
        -- A lock keeps what the call that set it asked for, until it ends or a call asks for something else.
        renewed := turn.active_agent IS NOT NULL AND NOT turn.lock_taken
            AND turn.call_ttl IS NULL AND turn.session_until IS NULL;
        UPDATE @schema.conversation_states s
            SET active_agent = CASE WHEN kept THEN s.active_agent::text ELSE turn.active_agent END,
                locked_at = CASE
                    WHEN kept THEN s.locked_at
                    WHEN turn.active_agent IS NULL THEN NULL
                    WHEN turn.lock_taken THEN moment
                    ELSE s.locked_at END,
                session_ttl = CASE WHEN kept THEN s.session_ttl ELSE coalesce(turn.session_ttl, s.session_ttl) END,
                call_ttl = CASE WHEN kept OR renewed THEN s.call_ttl ELSE turn.call_ttl END,
                session_until = CASE WHEN kept OR renewed THEN s.session_until ELSE turn.session_until END,
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
             started_at, committed_at, run, changes)
            VALUES (
                device, number, claim, fence_of_turn, turn.agent, turn.reply, turn.interrupt, turn.handoffs,
                turn.usage, turn.status, turn.attempts, turn.started_at, moment, turn.run, turn.changes);
        IF turn.facts IS NOT NULL THEN
            PERFORM @schema.moorline_keep_facts(device, turn.facts, moment, true);
        END IF;
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

-- For code of before moorline_commit_2. The first version whose previous code calls that drops it.
CREATE FUNCTION @schema.moorline_commit(
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
BEGIN
    RETURN QUERY
        SELECT c.place, c.outcome
        FROM @schema.moorline_commit_2(
            devices, claims, fences, turns, keep_turns, c_place, c_ns, c_id, c_parent, c_type, c_body, c_metadata,
            c_versions, v_place, v_ns, v_channel, v_version, v_type, v_blob, w_place, w_ns, w_id, w_task, w_idx,
            w_path, w_channel, w_type, w_blob) c;
END
$$;

-- Discard: removes checkpoints of a namespace with their writes and the values that no other checkpoint has.
CREATE FUNCTION @schema.moorline_discard(device text, ns text, doomed text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    unused_channels text[];
    unused_versions text[];
BEGIN
    SELECT pg_catalog.array_agg(u.channel), pg_catalog.array_agg(u.version) INTO unused_channels, unused_versions
        FROM (
            SELECT n.channel, n.version
            FROM @schema.conversation_checkpoints c
            CROSS JOIN LATERAL pg_catalog.jsonb_each_text(c.versions) AS n (channel, version)
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = ANY (doomed)
            EXCEPT
            SELECT n.channel, n.version
            FROM @schema.conversation_checkpoints c
            CROSS JOIN LATERAL pg_catalog.jsonb_each_text(c.versions) AS n (channel, version)
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id <> ALL (doomed)
        ) u;
    DELETE FROM @schema.conversation_values v
        USING unnest(unused_channels, unused_versions) AS u (channel, version)
        WHERE v.device_id = device AND v.checkpoint_ns = ns AND v.channel = u.channel AND v.version = u.version;
    DELETE FROM @schema.conversation_writes w
        WHERE w.device_id = device AND w.checkpoint_ns = ns AND w.checkpoint_id = ANY (doomed);
    DELETE FROM @schema.conversation_checkpoints c
        WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = ANY (doomed);
END
$$;

-- Prune: removes the checkpoints of turns up to last_turn that no value is made of any more. In each namespace it keeps
-- the one that the turn after those left or found, all later ones, and the ancestors that the delta channels of the
-- first of these are made of. The ancestors stay few even if an agent has long been silent or is missing from the app,
-- because those in between that only other channels are made of are taken out of the line. What is left of an earlier
-- turn gets the turn number 0, because the state of that turn is gone.
CREATE FUNCTION @schema.moorline_prune(device text, heads jsonb, last_turn bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    ns text;
    head text;
    oldest @schema.conversation_checkpoints;
    own text;
    ids text[];
    kept text[];
    line text[];
    child text;
    ancestor text;
    doomed text[];
BEGIN
    FOR ns, head IN SELECT n.key, n.value FROM pg_catalog.jsonb_each_text(heads) AS n (key, value) LOOP
        SELECT c.* INTO oldest
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0 AND c.turn_no <= last_turn + 1
            ORDER BY c.turn_no DESC, c.checkpoint_id DESC
            LIMIT 1;
        IF NOT FOUND THEN
            SELECT c.* INTO oldest
                FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ns
                    AND (c.turn_no > last_turn OR c.checkpoint_id = head)
                ORDER BY c.turn_no
                LIMIT 1;
        END IF;
        kept := ARRAY[oldest.checkpoint_id];
        line := kept;
        -- A channel stored as deltas is recognised by its writes: LangGraph's counts name only channels of agents that
        -- are in the graph.
        FOR own IN
            SELECT DISTINCT w.channel
            FROM @schema.conversation_writes w
            WHERE w.device_id = device AND w.checkpoint_ns = ns AND oldest.versions ? w.channel
                AND NOT EXISTS (
                    SELECT 1
                    FROM @schema.conversation_values v
                    WHERE v.device_id = device AND v.checkpoint_ns = ns
                        AND v.channel = w.channel AND v.version = oldest.versions->>w.channel)
        LOOP
            ids := @schema.moorline_ancestors(device, ns, oldest.checkpoint_id, own);
            CONTINUE WHEN ids IS NULL;
            IF pg_catalog.cardinality(ids) >= pg_catalog.cardinality(line) THEN
                line := pg_catalog.array_cat(ARRAY[oldest.checkpoint_id], ids);
            END IF;
            kept := pg_catalog.array_cat(kept, ARRAY(
                SELECT i.id
                FROM pg_catalog.unnest(ids) AS i (id)
                WHERE i.id = ids[pg_catalog.cardinality(ids)] OR EXISTS (
                    SELECT 1
                    FROM @schema.conversation_writes w
                    WHERE w.device_id = device AND w.checkpoint_ns = ns AND w.checkpoint_id = i.id
                        AND w.channel = own)));
        END LOOP;
        SELECT pg_catalog.array_agg(c.checkpoint_id) INTO doomed
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no <= last_turn
                AND c.checkpoint_id <> ALL (kept);
        CONTINUE WHEN doomed IS NULL;
        child := oldest.checkpoint_id;
        FOREACH ancestor IN ARRAY line LOOP
            CONTINUE WHEN ancestor = child OR ancestor = ANY (doomed);
            UPDATE @schema.conversation_checkpoints c
                SET parent_checkpoint_id = ancestor
                WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id = child
                    AND c.parent_checkpoint_id <> ancestor;
            child := ancestor;
        END LOOP;
        PERFORM @schema.moorline_discard(device, ns, doomed);
        UPDATE @schema.conversation_checkpoints c
            SET turn_no = 0
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0
                AND c.turn_no < oldest.turn_no AND c.turn_no <= last_turn;
    END LOOP;
END
$$;

-- Heartbeat: renews the lease of a turn that is still running. False: the claim no longer stands.
CREATE FUNCTION @schema.moorline_heartbeat(device text, claim uuid, lease_seconds double precision) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    lease timestamptz := pg_catalog.clock_timestamp() + lease_seconds * interval '1 second';
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = lease
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id = claim;
    RETURN FOUND;
END
$$;

-- Release: ends a turn that failed, so that the device goes on at once. Its messages wait for their next delivery;
-- those whose caller was not told of the failure (all but `notified`) can also be recovered. After max_attempts they
-- are set aside. A failure that is not the messages' fault (give_back) does not count as an attempt. With `forget` the
-- messages are deleted, as if they had never come. Returns whether the turn has effects that stand. `first` is the
-- first of its messages, to which effects belong, and what its failed attempts cost (spent; null: as before).
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

-- Abandon: leaves a turn as if its process had just died: the next claim of the device has to finish it first.
CREATE FUNCTION @schema.moorline_abandon(device text, claim uuid, give_back boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := device;
    state @schema.conversation_states;
BEGIN
    UPDATE @schema.conversation_states s
        SET lease_until = NULL
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id = claim AND s.lease_until IS NOT NULL
        RETURNING s.* INTO state;
    IF FOUND AND give_back THEN
        UPDATE @schema.conversation_messages m
            SET attempts = m.attempts - 1
            WHERE m.device_id = device AND m.message_id = ANY (state.open_messages) AND m.status = 'running';
    END IF;
END
$$;

-- Withdraw: for a message whose caller has gone before its turn began. It gives up its place in the queue; one
-- that never ran is deleted. If the claim was won but its answer was lost, the turn is released and does not count as an
-- attempt. Returns whether an earlier attempt at the message has effects that stand.
CREATE FUNCTION @schema.moorline_withdraw(device text, message text, claim uuid) RETURNS boolean
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

-- Requeue: puts a message that was set aside, or whose caller was told of its failure, at the end of the queue,
-- together with those that it ran with, and returns the message. No row means that there is no such message.
CREATE FUNCTION @schema.moorline_requeue(device text, message text) RETURNS TABLE (
    message_text text, message_resume jsonb, message_values jsonb
)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    own @schema.conversation_messages;
    last_arrival bigint;
    together text[];
    one text;
BEGIN
    SELECT s.arrivals INTO last_arrival
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    SELECT m.* INTO own
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.message_id = message
            AND (m.status = 'dead' OR m.status = 'waiting' AND m.waiter_until IS NULL);
    IF NOT FOUND OR last_arrival IS NULL THEN
        RETURN;
    END IF;
    SELECT pg_catalog.array_agg(m.message_id ORDER BY m.arrival) INTO together
        FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.status = own.status
            AND (m.message_id = message OR m.claim_id = own.claim_id);
    FOREACH one IN ARRAY together LOOP
        last_arrival := last_arrival + 1;
        UPDATE @schema.conversation_messages m
            SET status = 'waiting', attempts = 0, arrival = last_arrival, waiter_until = NULL
            WHERE m.device_id = device AND m.message_id = one;
    END LOOP;
    -- A later claim unsets it if there are no effects.
    UPDATE @schema.conversation_states s
        SET arrivals = last_arrival, unfinished = true
        WHERE s.device_id OPERATOR(pg_catalog.=) key;
    RETURN QUERY SELECT own.text, own.resume, own.values;
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
-- that an open turn is about to answer, or to close, is not.
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

-- Session: the live lock of the conversation that the device leads to. No row: there is none.
CREATE FUNCTION @schema.moorline_session(device text) RETURNS TABLE (
    active_agent text, locked_at timestamptz, expires_at timestamptz
)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(@schema.moorline_conversation(device));
    moment timestamptz := pg_catalog.statement_timestamp();
BEGIN
    RETURN QUERY
        SELECT s.active_agent::text, coalesce(s.locked_at, s.last_active_at),
            coalesce(s.session_until, greatest(s.last_active_at, s.locked_at)
                + coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
        FROM @schema.conversation_states s
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.active_agent IS NOT NULL
            AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second');
END
$$;

-- Set lock: takes or renews the lock of the conversation that the device leads to. locked_at, and what a call asked for
-- before, stay while the same agent's lock is live. ttl is what this call asks for, until the moment at which the lock
-- ends instead, agent_ttl the agent's own, default_ttl that of a device that has none yet. The moment comes after the
-- row is locked, so that it is later than the claim of an open turn. Returns the sessions that ended with it, as they
-- are told; null, and nothing is set, if `until` has passed.
CREATE FUNCTION @schema.moorline_set_lock_2(
    device text, agent text, ttl integer, until timestamptz, agent_ttl integer, default_ttl integer
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_conversation(device);
    s @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    ended jsonb := '[]'::jsonb;
    since timestamptz;
BEGIN
    IF until <= moment THEN
        RETURN NULL;
    END IF;
    INSERT INTO @schema.conversation_states AS n (device_id, session_ttl)
        VALUES (key, coalesce(ttl, agent_ttl, default_ttl))
        ON CONFLICT (device_id) DO NOTHING;
    SELECT l.* INTO STRICT s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    IF s.active_agent::text = agent
        AND s.active_agent IS NOT NULL
        AND coalesce(moment < s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            < coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        since := s.locked_at;
        IF ttl IS NULL AND until IS NULL THEN
            s.session_ttl := coalesce(agent_ttl, s.session_ttl);
        ELSE
            s.session_ttl := coalesce(ttl, agent_ttl, s.session_ttl);
            s.call_ttl := ttl;
            s.session_until := until;
        END IF;
    ELSE
        IF s.active_agent IS NOT NULL THEN
            ended := pg_catalog.jsonb_build_array(@schema.moorline_end_session(s, 'taken', moment));
        END IF;
        s.session_ttl := coalesce(ttl, agent_ttl, s.session_ttl);
        s.call_ttl := ttl;
        s.session_until := until;
    END IF;
    UPDATE @schema.conversation_states l
        SET active_agent = agent,
            session_ttl = s.session_ttl,
            call_ttl = s.call_ttl,
            session_until = s.session_until,
            locked_at = coalesce(since, moment),
            last_active_at = moment
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN ended;
END
$$;

-- For code of before moorline_set_lock_2. The first version whose previous code calls that drops it.
CREATE FUNCTION @schema.moorline_set_lock(
    device text, agent text, ttl integer, default_ttl integer
) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM @schema.moorline_set_lock_2(device, agent, ttl, NULL::timestamptz, NULL::integer, default_ttl);
END
$$;

-- Clear lock: drops the lock of the conversation that the device leads to, and nothing else. Returns the session that
-- ended with it, as it is told; null if there was no lock.
CREATE FUNCTION @schema.moorline_clear_lock_2(device text, why text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(@schema.moorline_conversation(device));
    s @schema.conversation_states;
    moment timestamptz;
BEGIN
    SELECT l.* INTO s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key AND l.active_agent IS NOT NULL
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE @schema.conversation_states l
        SET active_agent = NULL, locked_at = NULL, call_ttl = NULL, session_until = NULL
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    moment := pg_catalog.clock_timestamp();
    RETURN @schema.moorline_end_session(s, why, moment);
END
$$;

-- For code of before moorline_clear_lock_2. The first version whose previous code calls that drops it.
CREATE FUNCTION @schema.moorline_clear_lock(device text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN coalesce(@schema.moorline_clear_lock_2(device, 'cleared')->>'why'::text <> 'expired', false);
END
$$;

-- Set person TTL: how long the sessions of the conversation that the device leads to live from now on, the one that it
-- has now included; null: as without. A lock that has expired stays so. Returns the session that ended with it, as it
-- is told.
CREATE FUNCTION @schema.moorline_set_person_ttl(device text, ttl integer, default_ttl integer) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_conversation(device);
    s @schema.conversation_states;
    ended jsonb;
    moment timestamptz;
BEGIN
    INSERT INTO @schema.conversation_states AS n (device_id, session_ttl)
        VALUES (key, default_ttl)
        ON CONFLICT (device_id) DO NOTHING;
    SELECT l.* INTO STRICT s
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    IF s.claim_id IS NULL AND s.active_agent IS NOT NULL
        AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
            >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    THEN
        ended := @schema.moorline_end_session(s, 'expired', moment);
        s.active_agent := NULL;
        s.locked_at := NULL;
        s.call_ttl := NULL;
        s.session_until := NULL;
    END IF;
    UPDATE @schema.conversation_states l
        SET person_ttl = ttl,
            active_agent = s.active_agent,
            locked_at = s.locked_at,
            call_ttl = s.call_ttl,
            session_until = s.session_until
        WHERE l.device_id OPERATOR(pg_catalog.=) key;
    RETURN ended;
END
$$;

-- Expire locks: drops up to `most` expired locks, except those whose rows are locked and those of devices whose turn is
-- open: that turn will renew the lock. Returns the sessions, as they are told.
CREATE FUNCTION @schema.moorline_expire_locks(most integer) RETURNS SETOF jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE;
    held @schema.conversation_states;
    moment timestamptz := pg_catalog.clock_timestamp();
    cleared integer := 0;
BEGIN
    FOR key IN
        SELECT s.device_id
        FROM @schema.conversation_states s
        WHERE s.device_id IS NOT NULL AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
            AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
    LOOP
        SELECT s.* INTO held
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.claim_id IS NULL AND s.active_agent IS NOT NULL
                AND coalesce(moment >= s.session_until, moment - greatest(s.last_active_at, s.locked_at)
                    >= coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second')
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE @schema.conversation_states s
            SET active_agent = NULL, locked_at = NULL, call_ttl = NULL, session_until = NULL
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
        RETURN NEXT @schema.moorline_end_session(held, 'expired', moment);
        cleared := cleared + 1;
        EXIT WHEN cleared >= most;
    END LOOP;
END
$$;

-- For code of before moorline_expire_locks. The first version whose previous code calls that drops it.
CREATE FUNCTION @schema.moorline_clear_expired_locks(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN (SELECT pg_catalog.count(*) FROM @schema.moorline_expire_locks(most) e (session));
END
$$;

-- Head: the checkpoint asked for, else the recorded head of the namespace, else the one with the greatest ID.
CREATE FUNCTION @schema.moorline_head(device text, ns text, id text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE;
    found_id text := id;
BEGIN
    IF found_id IS NULL THEN
        key := @schema.moorline_key(device);
        SELECT s.heads->>ns INTO found_id
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
    END IF;
    IF found_id IS NULL THEN
        SELECT c.checkpoint_id INTO found_id
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns
            ORDER BY c.checkpoint_id DESC
            LIMIT 1;
    END IF;
    RETURN found_id;
END
$$;

-- Checkpoints: those of many devices, each chosen by moorline_head, with its place in the arrays.
CREATE FUNCTION @schema.moorline_checkpoints(devices text[], namespaces text[], ids text[]) RETURNS TABLE (
    place integer,
    checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text, checkpoint bytea,
    metadata jsonb, versions jsonb,
    value_channels text[], value_versions text[], value_types text[], value_blobs bytea[],
    write_tasks text[], write_idxs integer[], write_paths text[], write_channels text[], write_types text[],
    write_blobs bytea[]
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    own integer;
    head text;
BEGIN
    FOR own IN 1..pg_catalog.cardinality(devices) LOOP
        head := @schema.moorline_head(devices[own], namespaces[own], ids[own]);
        RETURN QUERY
            SELECT own, c.* FROM @schema.moorline_checkpoint(devices[own], namespaces[own], head) c;
    END LOOP;
END
$$;

-- Put: stores what calls of many devices write outside a turn: checkpoints, the channel values that are new with them,
-- and task writes; w_replaces says whether a write replaces what the task wrote there before. A checkpoint becomes the
-- head of its namespace if a head is recorded there. Returns the devices whose rows another transaction has locked:
-- none of their checkpoints and values are stored.
CREATE FUNCTION @schema.moorline_put(
    c_device text[], c_ns text[], c_id text[], c_parent text[], c_type text[], c_body bytea[], c_metadata text[],
    c_versions text[],
    v_device text[], v_ns text[], v_channel text[], v_version text[], v_type text[], v_blob bytea[],
    w_device text[], w_ns text[], w_id text[], w_task text[], w_idx integer[], w_path text[], w_channel text[],
    w_type text[], w_blob bytea[], w_replaces boolean[]
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    device text;
    namespaces text[];
    latest jsonb;
    key @schema.conversation_states.device_id%TYPE;
    state @schema.conversation_states;
    moved jsonb;
    locked text[] := '{}'::text[];
BEGIN
    FOR device, namespaces, latest IN
        SELECT n.device, pg_catalog.array_agg(n.ns), pg_catalog.jsonb_object_agg(n.ns, n.id ORDER BY n.id)
        FROM unnest(c_device, c_ns, c_id) AS n (device, ns, id)
        GROUP BY n.device
        ORDER BY n.device
    LOOP
        key := @schema.moorline_key(device);
        -- Most devices of a plain saver have no row, and one look finds that out.
        PERFORM 1
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.heads ?| namespaces;
        CONTINUE WHEN NOT FOUND;
        SELECT s.* INTO state
            FROM @schema.conversation_states s
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.heads ?| namespaces
            FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            locked := pg_catalog.array_append(locked, device);
            CONTINUE;
        END IF;
        SELECT pg_catalog.jsonb_object_agg(n.ns, n.id) INTO moved
            FROM pg_catalog.jsonb_each(latest) AS n (ns, id)
            WHERE state.heads ? n.ns;
        UPDATE @schema.conversation_states s
            SET heads = s.heads || moved
            WHERE s.device_id OPERATOR(pg_catalog.=) key;
    END LOOP;
    INSERT INTO @schema.conversation_checkpoints
        (device_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, versions)
        SELECT n.device, n.ns, n.id, n.parent, n.type, n.body, n.metadata::jsonb, n.versions::jsonb
        FROM unnest(c_device, c_ns, c_id, c_parent, c_type, c_body, c_metadata, c_versions)
            AS n (device, ns, id, parent, type, body, metadata, versions)
        WHERE n.device <> ALL (locked)
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id) DO UPDATE
        SET type = excluded.type,
            checkpoint = excluded.checkpoint,
            metadata = excluded.metadata,
            versions = excluded.versions;
    INSERT INTO @schema.conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
        SELECT n.device, n.ns, n.channel, n.version, n.type, n.blob
        FROM unnest(v_device, v_ns, v_channel, v_version, v_type, v_blob)
            AS n (device, ns, channel, version, type, blob)
        WHERE n.device <> ALL (locked)
        ON CONFLICT (device_id, checkpoint_ns, channel, version) DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
        SELECT n.device, n.ns, n.id, n.task, n.idx, n.path, n.channel, n.type, n.blob
        FROM unnest(w_device, w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob, w_replaces)
            AS n (device, ns, id, task, idx, path, channel, type, blob, replaces)
        WHERE NOT n.replaces
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;
    INSERT INTO @schema.conversation_writes
        (device_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob)
        SELECT n.device, n.ns, n.id, n.task, n.idx, n.path, n.channel, n.type, n.blob
        FROM unnest(w_device, w_ns, w_id, w_task, w_idx, w_path, w_channel, w_type, w_blob, w_replaces)
            AS n (device, ns, id, task, idx, path, channel, type, blob, replaces)
        WHERE n.replaces
        ON CONFLICT (device_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
        SET channel = excluded.channel,
            type = excluded.type,
            blob = excluded.blob;
    RETURN QUERY SELECT l.device FROM pg_catalog.unnest(locked) AS l (device);
END
$$;

-- Prune all: removes all checkpoints of a device and nothing else.
CREATE FUNCTION @schema.moorline_prune_all(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
BEGIN
    PERFORM @schema.moorline_hold(device);
    UPDATE @schema.conversation_states s
        SET heads = '{}'
        WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.heads <> '{}';
    DELETE FROM @schema.conversation_values v WHERE v.device_id = device;
    DELETE FROM @schema.conversation_writes w WHERE w.device_id = device;
    DELETE FROM @schema.conversation_checkpoints c WHERE c.device_id = device;
END
$$;

-- Prune to latest: removes all checkpoints but the latest of each namespace and the ancestors it is made of: the value
-- of a delta channel is in the writes of the ancestors, back to the nearest that has it stored. The namespace of a
-- single call of a subgraph (with a task ID after a colon) is removed with the root checkpoint that it was called from.
-- Only writes of removed checkpoints are removed, because writes may arrive before their own checkpoint.
CREATE FUNCTION @schema.moorline_prune_to_latest(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    heads jsonb;
    ns text;
    own text;
    latest @schema.conversation_checkpoints;
    kept text[];
    doomed text[];
    doomed_roots text[];
    past_call boolean;
BEGIN
    PERFORM @schema.moorline_hold(device);
    SELECT s.heads INTO heads FROM @schema.conversation_states s WHERE s.device_id OPERATOR(pg_catalog.=) key;
    -- The root's namespace is called '' and comes first.
    FOR ns IN
        SELECT DISTINCT c.checkpoint_ns FROM @schema.conversation_checkpoints c WHERE c.device_id = device ORDER BY 1
    LOOP
        SELECT c.* INTO latest
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns
            ORDER BY coalesce(c.checkpoint_id = heads->>ns, false) DESC, c.checkpoint_id DESC
            LIMIT 1;
        past_call := pg_catalog.strpos(ns, ':') > 0
            AND coalesce((latest.metadata->'parents'::text->>''::text) = ANY (doomed_roots), false);
        kept := CASE WHEN past_call THEN '{}'::text[] ELSE ARRAY[latest.checkpoint_id] END;
        IF NOT past_call THEN
            FOR own IN
                SELECT DISTINCT d.channel
                FROM @schema.conversation_checkpoints c
                CROSS JOIN LATERAL pg_catalog.unnest(@schema.moorline_delta_channels(c.metadata)) AS d (channel)
                WHERE c.device_id = device AND c.checkpoint_ns = ns AND latest.versions ? d.channel
                    AND NOT EXISTS (
                        SELECT 1
                        FROM @schema.conversation_values v
                        WHERE v.device_id = device AND v.checkpoint_ns = ns
                            AND v.channel = d.channel AND v.version = latest.versions->>d.channel)
            LOOP
                kept := pg_catalog.array_cat(
                    kept, @schema.moorline_ancestors(device, ns, latest.checkpoint_id, own));
            END LOOP;
        END IF;
        SELECT pg_catalog.array_agg(c.checkpoint_id) INTO doomed
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.checkpoint_id <> ALL (kept);
        IF ns = '' THEN
            doomed_roots := doomed;
        END IF;
        IF doomed IS NOT NULL THEN
            PERFORM @schema.moorline_discard(device, ns, doomed);
            PERFORM @schema.moorline_orphan(device, ns, doomed);
        END IF;
        IF past_call THEN
            UPDATE @schema.conversation_states s
                SET heads = s.heads - ns
                WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.heads ? ns;
        END IF;
    END LOOP;
END
$$;

-- Orphan: checkpoints whose parents were removed have no parent any more.
CREATE FUNCTION @schema.moorline_orphan(device text, ns text, gone text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    UPDATE @schema.conversation_checkpoints c
        SET parent_checkpoint_id = NULL
        WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.parent_checkpoint_id = ANY (gone);
END
$$;

-- Delete runs: removes the checkpoints of some runs, in all conversations. A removed head is no longer recorded as one.
CREATE FUNCTION @schema.moorline_delete_runs(runs text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    device text;
    ns text;
    doomed text[];
    key @schema.conversation_states.device_id%TYPE;
BEGIN
    FOR device, ns, doomed IN
        SELECT c.device_id, c.checkpoint_ns, pg_catalog.array_agg(c.checkpoint_id)
        FROM @schema.conversation_checkpoints c
        WHERE c.metadata->>'run_id'::text = ANY (runs)
        GROUP BY c.device_id, c.checkpoint_ns
        ORDER BY c.device_id, c.checkpoint_ns
    LOOP
        key := @schema.moorline_key(device);
        PERFORM @schema.moorline_hold(device);
        PERFORM @schema.moorline_discard(device, ns, doomed);
        PERFORM @schema.moorline_orphan(device, ns, doomed);
        UPDATE @schema.conversation_states s
            SET heads = s.heads - ns
            WHERE s.device_id OPERATOR(pg_catalog.=) key AND s.heads->>ns = ANY (doomed);
    END LOOP;
END
$$;

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

-- Copy: copies a conversation's checkpoints and files to another device ID, whose heads are then the same. What the target
-- already has under the same keys stays.
CREATE FUNCTION @schema.moorline_copy(source text, target text) RETURNS void
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

-- Rewind: the conversation goes on as after this turn (0: as before its first): its heads, and who holds the session,
-- are as then. The turns that followed stay in the transcript, with rewound_at; their checkpoints are removed, and a
-- question that waits is closed. Effects and facts stay. Never waits for the row. Returns a JSON object: outcome,
-- `effects`, those of all turns after this one, and `ended`, the session that ended, as it is told. The outcome is
--   rewound   the conversation is as after this turn.
--   busy      a turn is open, or a message waits: ask again.
--   locked    another transaction has the row: ask again.
--   unknown   there is no such turn, or it has itself been rewound.
--   asked     the turn stopped to ask.
--   gone      what the turn left is no longer kept.
CREATE FUNCTION @schema.moorline_rewind(device text, last_turn bigint, keep_turns integer) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    key @schema.conversation_states.device_id%TYPE := @schema.moorline_key(device);
    state @schema.conversation_states;
    turn @schema.conversation_turns;
    ns text;
    base @schema.conversation_checkpoints;
    found_heads jsonb := '{}'::jsonb;
    doomed text[];
    holder text;
    ended jsonb;
    effects jsonb;
    moment timestamptz;
BEGIN
    SELECT l.* INTO state
        FROM @schema.conversation_states l
        WHERE l.device_id OPERATOR(pg_catalog.=) key
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN CASE
            WHEN EXISTS (
                SELECT 1 FROM @schema.conversation_states l WHERE l.device_id OPERATOR(pg_catalog.=) key)
            THEN '{"outcome": "locked"}'::jsonb
            ELSE '{"outcome": "unknown"}'::jsonb END;
    END IF;
    moment := pg_catalog.clock_timestamp();
    IF state.claim_id IS NOT NULL OR EXISTS (
        SELECT 1 FROM @schema.conversation_messages m
        WHERE m.device_id = device AND m.queued AND m.waiter_until > moment)
    THEN
        RETURN '{"outcome": "busy"}'::jsonb;
    END IF;
    SELECT t.* INTO turn FROM @schema.conversation_turns t WHERE t.device_id = device AND t.turn_no = last_turn;
    IF last_turn <> 0 AND (turn.turn_no IS NULL OR turn.rewound_at IS NOT NULL) THEN
        RETURN '{"outcome": "unknown"}'::jsonb;
    ELSIF turn.interrupt ? 'id'::text AND last_turn < state.last_turn_no THEN
        RETURN '{"outcome": "asked"}'::jsonb;
    ELSIF last_turn <= state.last_turn_no - state.last_turn_no % keep_turns::bigint - keep_turns::bigint THEN
        RETURN '{"outcome": "gone"}'::jsonb;
    END IF;
    SELECT coalesce(
            pg_catalog.jsonb_agg(
                pg_catalog.jsonb_build_object(
                    'turn_no', e.turn_no, 'agent', e.agent, 'name', e.name, 'intent', e.intent, 'result', e.result,
                    'recorded_at', e.recorded_at)
                ORDER BY e.turn_no, e.position),
            '[]'::jsonb)
        INTO effects
        FROM @schema.conversation_effects e
        WHERE e.device_id = device AND e.turn_no > last_turn AND e.kind <> 'answer'
            AND coalesce(e.kind = 'outside' OR NOT e.result ? 'refused'::text, true);

    IF EXISTS (
        SELECT 1 FROM @schema.conversation_turns t
        WHERE t.device_id = device AND t.turn_no > last_turn AND t.rewound_at IS NULL)
    THEN
        FOR ns IN
            SELECT DISTINCT c.checkpoint_ns FROM @schema.conversation_checkpoints c WHERE c.device_id = device
        LOOP
            SELECT c.* INTO base
                FROM @schema.conversation_checkpoints c
                WHERE c.device_id = device AND c.checkpoint_ns = ns AND c.turn_no > 0 AND c.turn_no <= last_turn
                ORDER BY c.turn_no DESC, c.checkpoint_id DESC
                LIMIT 1;
            IF FOUND THEN
                found_heads := found_heads || pg_catalog.jsonb_build_object(ns, base.checkpoint_id);
            ELSE
                -- It began later, or its beginning is gone.
                SELECT c.* INTO base
                    FROM @schema.conversation_checkpoints c
                    WHERE c.device_id = device AND c.checkpoint_ns = ns
                    ORDER BY c.turn_no
                    LIMIT 1;
                IF base.turn_no = 0 OR base.parent_checkpoint_id IS NOT NULL THEN
                    RETURN '{"outcome": "gone"}'::jsonb;
                END IF;
            END IF;
        END LOOP;
        IF found_heads = '{}'::jsonb AND last_turn > 0 THEN
            RETURN '{"outcome": "gone"}'::jsonb;
        END IF;

        FOR ns, doomed IN
            SELECT c.checkpoint_ns, pg_catalog.array_agg(c.checkpoint_id)
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND c.turn_no > last_turn
            GROUP BY c.checkpoint_ns
        LOOP
            PERFORM @schema.moorline_discard(device, ns, doomed);
        END LOOP;
        -- What later turns wrote on top of the heads.
        FOR base IN
            SELECT c.*
            FROM @schema.conversation_checkpoints c
            WHERE c.device_id = device AND found_heads->>c.checkpoint_ns = c.checkpoint_id
        LOOP
            DELETE FROM @schema.conversation_writes w
                WHERE w.device_id = device AND w.checkpoint_ns = base.checkpoint_ns
                    AND w.checkpoint_id = base.checkpoint_id AND w.fence > base.fence;
        END LOOP;
        UPDATE @schema.conversation_turns t
            SET rewound_at = moment, status = 'done'
            WHERE t.device_id = device AND t.turn_no > last_turn AND t.rewound_at IS NULL;
        IF state.active_agent IS NULL OR state.locked_at > turn.committed_at OR last_turn = 0 THEN
            ended := @schema.moorline_end_session(state, 'cleared', moment);
            SELECT n.agent INTO holder
                FROM @schema.conversation_sessions n
                WHERE n.device_id = device AND n.locked_at <= turn.committed_at AND n.ended_at > turn.committed_at
                ORDER BY n.ended_at, n.position
                LIMIT 1;
            UPDATE @schema.conversation_states l
                SET heads = found_heads, active_agent = holder,
                    locked_at = CASE WHEN holder IS NOT NULL THEN moment END,
                    last_active_at = moment, call_ttl = NULL, session_until = NULL
                WHERE l.device_id OPERATOR(pg_catalog.=) key;
        ELSE
            UPDATE @schema.conversation_states l
                SET heads = found_heads
                WHERE l.device_id OPERATOR(pg_catalog.=) key;
        END IF;
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'outcome', 'rewound',
        'effects', effects,
        'ended', CASE WHEN ended IS NOT NULL THEN pg_catalog.jsonb_build_array(ended) END);
END
$$;

-- Erase: removes everything of a device from these tables; an open turn becomes stale. First the row is blanked, or a
-- blank one inserted: this waits for a turn that is committing, so that its rows are seen, and blocks new turns until
-- the end. If another table refers to the row, it stays, blank.
CREATE FUNCTION @schema.moorline_erase(device text) RETURNS void
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
    DELETE FROM @schema.moorline_people p WHERE p.device_id = device;
    DELETE FROM @schema.moorline_codes c WHERE c.device_id = device;
    DELETE FROM @schema.conversation_messages m WHERE m.device_id = device;
    DELETE FROM @schema.conversation_turns t WHERE t.device_id = device;
    DELETE FROM @schema.conversation_sessions n WHERE n.device_id = device;
    PERFORM @schema.moorline_remove_days(device, NULL::date);
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
CREATE FUNCTION @schema.moorline_export(device text) RETURNS jsonb
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
CREATE FUNCTION @schema.moorline_known(device text) RETURNS boolean
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

-- Erase everywhere: erases what every component has of a device, these tables first, in one transaction. Returns
-- whether these tables had anything of it. The erase function of a component is in moorline_schema; the newest version
-- that names one counts. Components that this process does not know are included. If one fails, nothing is erased: the
-- message of ML003 is its name, the detail says why.
CREATE FUNCTION @schema.moorline_erase_everywhere(device text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    eraser record;
    known boolean;
BEGIN
    PERFORM @schema.moorline_hold(device);
    known := @schema.moorline_known(device);
    PERFORM @schema.moorline_erase(device);
    FOR eraser IN
        SELECT DISTINCT ON (n.component) n.component, n.erase_function
        FROM @schema.moorline_schema n
        WHERE n.component <> 'moorline' AND n.erase_function IS NOT NULL
        ORDER BY n.component, n.version DESC
    LOOP
        BEGIN
            EXECUTE pg_catalog.format('SELECT @schema.%I($1)', eraser.erase_function) USING device;
        EXCEPTION
            -- These errors may be gone on the next try.
            WHEN transaction_rollback OR lock_not_available OR insufficient_resources OR operator_intervention THEN
                RAISE;
            WHEN OTHERS THEN
                RAISE EXCEPTION USING ERRCODE = 'ML003', MESSAGE = eraser.component, DETAIL = SQLERRM;
        END;
    END LOOP;
    RETURN known;
END
$$;

-- Export everywhere: a JSON object with the result of each component's export function, by the component's name.
CREATE FUNCTION @schema.moorline_export_everywhere(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    exporter record;
    part jsonb;
    exported jsonb := '{}'::jsonb;
BEGIN
    FOR exporter IN
        SELECT DISTINCT ON (n.component) n.component, n.export_function
        FROM @schema.moorline_schema n
        WHERE n.export_function IS NOT NULL
        ORDER BY n.component, n.version DESC
    LOOP
        EXECUTE pg_catalog.format('SELECT @schema.%I($1)', exporter.export_function) INTO part USING device;
        exported := exported || pg_catalog.jsonb_build_object(exporter.component, part);
    END LOOP;
    RETURN exported;
END
$$;

-- Stored: the number of checkpoint, value and write rows of a device.
CREATE FUNCTION @schema.moorline_stored(device text) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT pg_catalog.count(*) FROM @schema.conversation_checkpoints c WHERE c.device_id = device)
        + (SELECT pg_catalog.count(*) FROM @schema.conversation_values v WHERE v.device_id = device)
        + (SELECT pg_catalog.count(*) FROM @schema.conversation_writes w WHERE w.device_id = device);
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
CREATE FUNCTION @schema.moorline_retire(device text, days double precision, most integer) RETURNS bigint
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
    removed := removed + @schema.moorline_remove_days(device, oldest_day);

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

-- Expire facts: removes up to `most` facts that have expired. One that somebody else is writing is left. Returns how
-- many were removed.
CREATE FUNCTION @schema.moorline_expire_facts(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    fact record;
    moment timestamptz := pg_catalog.clock_timestamp();
    removed integer := 0;
BEGIN
    FOR fact IN
        SELECT f.device_id, f.namespace, f.key
        FROM @schema.conversation_facts f
        WHERE f.expires_at <= moment
        LIMIT most
    LOOP
        PERFORM 1
            FROM @schema.conversation_facts f
            WHERE f.device_id = fact.device_id AND f.namespace = fact.namespace AND f.key = fact.key
                AND f.expires_at <= moment
            FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        DELETE FROM @schema.conversation_facts f
            WHERE f.device_id = fact.device_id AND f.namespace = fact.namespace AND f.key = fact.key;
        removed := removed + 1;
    END LOOP;
    RETURN removed;
END
$$;

-- Revoke: refuses all tokens of the device that were issued until now.
CREATE FUNCTION @schema.moorline_revoke(hashed bytea) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
    raised bigint := (pg_catalog.date_part('epoch', moment) * 1000000::double precision)::bigint;
BEGIN
    INSERT INTO @schema.moorline_revocations AS r (device, generation, revoked_at)
        VALUES (hashed, raised, moment)
        ON CONFLICT (device) DO UPDATE
        SET generation = greatest(r.generation + 1::bigint, raised), revoked_at = moment;
END
$$;

-- Forget revocations: removes those of so many days ago. Returns how many.
CREATE FUNCTION @schema.moorline_forget_revocations(days double precision) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    oldest timestamptz := pg_catalog.clock_timestamp() - days * interval '1 day';
    gone bigint;
BEGIN
    DELETE FROM @schema.moorline_revocations r WHERE r.revoked_at < oldest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

-- Claim cleanup: makes this process the one that cleans up, for lease_seconds; called again it renews the lease. False:
-- another process is at it, or the last cleanup began less than pause_seconds ago.
CREATE FUNCTION @schema.moorline_claim_cleanup(
    claim uuid, lease_seconds double precision, pause_seconds double precision
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    own @schema.moorline_cleanups;
    moment timestamptz;
    lease timestamptz;
BEGIN
    SELECT c.* INTO own FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR UPDATE;
    moment := pg_catalog.clock_timestamp();
    lease := moment + lease_seconds * interval '1 second';
    IF own.name IS NULL THEN
        RETURN false;
    ELSIF own.claim_id = claim THEN
        UPDATE @schema.moorline_cleanups c SET lease_until = lease WHERE c.name = 'cleanup'::text;
        RETURN true;
    ELSIF own.lease_until > moment OR moment - own.begun_at < pause_seconds * interval '1 second' THEN
        RETURN false;
    END IF;
    UPDATE @schema.moorline_cleanups c
        SET claim_id = claim, lease_until = lease, begun_at = moment
        WHERE c.name = 'cleanup'::text;
    RETURN true;
END
$$;

-- End cleanup: another process may clean up at once.
CREATE FUNCTION @schema.moorline_end_cleanup(claim uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    UPDATE @schema.moorline_cleanups c
        SET claim_id = NULL, lease_until = NULL
        WHERE c.name = 'cleanup'::text AND c.claim_id = claim;
END
$$;

-- Add days: counts a device's days that are over in the daily totals: sign 1, or -1 before they are removed. The caller
-- has locked the row of the cleanup.
CREATE FUNCTION @schema.moorline_add_days(device text, before date, sign integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    added_up_to date := (
        SELECT pg_catalog.timezone('UTC', c.rolled_up_to)::date
        FROM @schema.moorline_cleanups c
        WHERE c.name = 'cleanup'::text);
BEGIN
    INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
        SELECT d.day, d.agent, d.model, sign * d.turns, CASE WHEN d.turns > 0::bigint THEN sign ELSE 0 END,
            sign * d.input_tokens, sign * d.output_tokens
        FROM @schema.conversation_days d
        WHERE d.device_id = device AND d.day < added_up_to AND coalesce(d.day < before, true)
        UNION ALL
        SELECT DISTINCT d.day, '*', '', 0::bigint, sign, 0::bigint, 0::bigint
        FROM @schema.conversation_days d
        WHERE d.device_id = device AND d.day < added_up_to AND coalesce(d.day < before, true)
            AND d.turns > 0::bigint;
END
$$;

-- Remove days: removes a device's days, or those before a day. Returns how many rows there were.
CREATE FUNCTION @schema.moorline_remove_days(device text, before date) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    gone bigint;
BEGIN
    -- A roll-up that runs would bring them back.
    PERFORM 1 FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    PERFORM @schema.moorline_add_days(device, before, -1);
    DELETE FROM @schema.conversation_days d WHERE d.device_id = device AND coalesce(d.day < before, true);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

-- Roll up: adds the turns of the next hour to conversation_days, and with the last hour of a day that day to
-- moorline_days. Returns false, and does nothing, if the hour has not been over for ten minutes: until then the commit
-- of one of its turns may still be on its way. However many call it, each hour is added once, because the row with the
-- moment is locked.
CREATE FUNCTION @schema.moorline_roll_up() RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    since timestamptz;
    next timestamptz;
    moment timestamptz;
    hour interval := interval '1 hour';
    own_day date;
BEGIN
    SELECT c.rolled_up_to INTO since FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    moment := pg_catalog.clock_timestamp();
    IF since IS NULL THEN
        since := pg_catalog.date_trunc('hour', coalesce(
            (SELECT pg_catalog.min(t.committed_at) FROM @schema.conversation_turns t), moment), 'UTC');
    END IF;
    next := since + hour;
    IF moment - next < interval '10 minutes' THEN
        RETURN false;
    END IF;
    INSERT INTO @schema.conversation_days AS d (device_id, day, agent, model, turns, input_tokens, output_tokens)
        SELECT f.device_id, pg_catalog.timezone('UTC', since)::date, f.agent, f.model, pg_catalog.sum(f.turns),
            pg_catalog.sum(f.input_tokens), pg_catalog.sum(f.output_tokens)
        FROM @schema.turn_figures f
        WHERE f.committed_at >= since AND f.committed_at < next
        GROUP BY f.device_id, f.agent, f.model
        ON CONFLICT (device_id, day, agent, model) DO UPDATE
        SET turns = d.turns + excluded.turns,
            input_tokens = d.input_tokens + excluded.input_tokens,
            output_tokens = d.output_tokens + excluded.output_tokens;
    own_day := pg_catalog.timezone('UTC', since)::date;
    IF pg_catalog.timezone('UTC', next)::date > own_day THEN
        INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
            SELECT d.day, d.agent, d.model, pg_catalog.sum(d.turns),
                pg_catalog.count(*) FILTER (WHERE d.turns > 0::bigint), pg_catalog.sum(d.input_tokens),
                pg_catalog.sum(d.output_tokens)
            FROM @schema.conversation_days d
            WHERE d.day = own_day
            GROUP BY d.day, d.agent, d.model
            UNION ALL
            SELECT d.day, '*', '', 0::bigint, pg_catalog.count(DISTINCT d.device_id), 0::bigint, 0::bigint
            FROM @schema.conversation_days d
            WHERE d.day = own_day AND d.turns > 0::bigint
            GROUP BY d.day;
        -- What erasures have taken off is added to what was there.
        WITH gone AS (
            DELETE FROM @schema.moorline_days d
            RETURNING d.day, d.agent, d.model, d.turns, d.people, d.input_tokens, d.output_tokens
        )
        INSERT INTO @schema.moorline_days (day, agent, model, turns, people, input_tokens, output_tokens)
            SELECT g.day, g.agent, g.model, pg_catalog.sum(g.turns), pg_catalog.sum(g.people),
                pg_catalog.sum(g.input_tokens), pg_catalog.sum(g.output_tokens)
            FROM gone g
            GROUP BY g.day, g.agent, g.model
            HAVING pg_catalog.sum(g.people) > 0::numeric OR pg_catalog.sum(g.input_tokens) > 0::numeric
                OR pg_catalog.sum(g.output_tokens) > 0::numeric;
    END IF;
    UPDATE @schema.moorline_cleanups c SET rolled_up_to = next WHERE c.name = 'cleanup'::text;
    RETURN true;
END
$$;

-- Recount: makes the rows of a device in conversation_days anew from its turns, after rows of other times were stored.
CREATE FUNCTION @schema.moorline_recount(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    until timestamptz;
BEGIN
    SELECT c.rolled_up_to INTO until FROM @schema.moorline_cleanups c WHERE c.name = 'cleanup'::text FOR SHARE;
    PERFORM @schema.moorline_remove_days(device, NULL::date);
    INSERT INTO @schema.conversation_days (device_id, day, agent, model, turns, input_tokens, output_tokens)
        SELECT device, f.day, f.agent, f.model, pg_catalog.sum(f.turns), pg_catalog.sum(f.input_tokens),
            pg_catalog.sum(f.output_tokens)
        FROM (
            SELECT pg_catalog.timezone('UTC', t.committed_at)::date AS day, t.agent, t.model, t.turns, t.input_tokens,
                t.output_tokens
            FROM @schema.turn_figures t
            WHERE t.device_id = device AND t.committed_at < until
        ) f
        GROUP BY f.day, f.agent, f.model;
    PERFORM @schema.moorline_add_days(device, NULL::date, 1);
END
$$;

-- The whole schema as the numbered files leave it, to be read. It is made by `moorline migrate`, not by this file; a
-- test replays the numbered files and compares. `@schema` stands for the schema's name.
--
-- Conversations. A device is the key of one conversation and leads every primary key: nothing but sweeps and
-- statistics reads across devices.
--
--   conversation_states       a row a device: which agent holds the session (the lock), since when and for how long;
--                             the open turn, if there is one; and where each agent's memory stands (heads)
--   conversation_messages     a row a message that came in: queue, dedupe, and what a rerun needs
--   conversation_turns        a row a committed turn: the reply, by whom, at what cost. The transcript
--   conversation_checkpoints  LangGraph's checkpoints, one namespace an agent
--   conversation_values       the channel values of checkpoints, each version once
--   conversation_writes       what tasks wrote before the next checkpoint
--   conversation_effects      what tools did to the world, by their place in the turn, so that it happens once
--   conversation_fences       the sequence of fences: each claimed turn takes the next
--   expired_sessions          the locks whose time has passed
--
-- A lock is live while active_agent is set and greatest(last_active_at, locked_at) + session_ttl seconds is to come,
-- on the database's clock; greatest() passes over nulls, so that a lock by a backend that knows only active_agent and
-- locked_at counts as well. locked_at changes only with the lock. last_active_at has no index, so that the update of a
-- turn stays within its page; so does the free room that the fillfactor leaves.
--
-- A turn is claimed by writing claim_id, lease_until and the next fence into the row of its device. What it writes
-- carries its fence (null: written outside a turn), and its last statement is refused unless the row still has it.
-- arrivals counts the messages of a device, last_turn_no its committed turns; heads maps a namespace to the ID of the
-- last checkpoint that a committed turn left there. open_messages are those of the open turn. last_worker and
-- worker_turns say which process claimed last, and how often in a row: it gives way to others in time.
--
-- moorline_claim_… and moorline_commit_… are those two steps of a turn. A function is never changed, only followed by one
-- of the next number, because two versions of the code may run on one schema.
--
-- A backend that had a conversation_states of its own keeps it: see add_session_lock_fields.sql for what it gains. Its
-- device_id may then be a uuid, and null in rows that Moorline never touches.
--
-- Appointments, the scheduling agent's own.
--
--   appointment_services      what can be booked, and how long it takes
--   appointment_providers     who gives it, in which time zone
--   appointment_offers        who gives what
--   appointment_hours         when a provider is open: a row a span a weekday, in wall-clock time
--   appointment_closures      the days a provider is closed
--   appointments              what is booked. Two bookings of one provider cannot overlap
--
-- moorline_schema has a row a version applied. Code runs on its own and on newer versions, unless one of those names in
-- oldest_code a version that the code does not know.

CREATE TABLE @schema.moorline_schema (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    oldest_code integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
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
    lease_until    timestamptz,
    heads          jsonb NOT NULL DEFAULT '{}',
    arrivals       bigint NOT NULL DEFAULT 0,
    last_worker    text,
    worker_turns   integer NOT NULL DEFAULT 0,
    open_messages  text[]
) WITH (fillfactor = 70);
COMMENT ON COLUMN @schema.conversation_states.open_messages IS 'Added by Moorline: the messages of the open turn';

CREATE INDEX idx_conversation_states_active_agent ON @schema.conversation_states (active_agent)
    WHERE active_agent IS NOT NULL;
CREATE INDEX idx_conversation_states_locked_at ON @schema.conversation_states (locked_at)
    WHERE locked_at IS NOT NULL;

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

CREATE VIEW @schema.expired_sessions AS
SELECT device_id::text AS device_id,
       active_agent,
       locked_at,
       greatest(last_active_at, locked_at) + session_ttl * interval '1 second' AS expired_at
FROM @schema.conversation_states
WHERE device_id IS NOT NULL
  AND active_agent IS NOT NULL
  AND greatest(last_active_at, locked_at) + session_ttl * interval '1 second' <= clock_timestamp();

CREATE TABLE @schema.appointment_services (
    service_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    minutes    integer NOT NULL CHECK (minutes > 0)
);

CREATE TABLE @schema.appointment_providers (
    provider_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    time_zone   text NOT NULL
);

CREATE TABLE @schema.appointment_offers (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    service_id  bigint REFERENCES @schema.appointment_services ON DELETE CASCADE,
    PRIMARY KEY (provider_id, service_id)
);

-- Wall-clock hours in the provider's time zone; weekday 1 is Monday, as in ISO 8601.
CREATE TABLE @schema.appointment_hours (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    weekday     smallint CHECK (weekday BETWEEN 1 AND 7),
    opens       time,
    closes      time NOT NULL,
    PRIMARY KEY (provider_id, weekday, opens),
    CHECK (opens < closes)
);

CREATE TABLE @schema.appointment_closures (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    day         date,
    PRIMARY KEY (provider_id, day)
);

-- The exclusion takes the provider as a range of one number: that needs no extension.
CREATE TABLE @schema.appointments (
    device_id      text,
    appointment_id uuid DEFAULT gen_random_uuid(),
    provider_id    bigint NOT NULL REFERENCES @schema.appointment_providers,
    service_id     bigint NOT NULL REFERENCES @schema.appointment_services,
    during         tstzrange NOT NULL CHECK (NOT isempty(during)),
    status         text NOT NULL DEFAULT 'booked' CHECK (status IN ('booked', 'cancelled')),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (device_id, appointment_id),
    CONSTRAINT appointments_one_at_a_time
        EXCLUDE USING gist (int8range(provider_id, provider_id, '[]') WITH &&, during WITH &&)
        WHERE (status = 'booked')
);

-- The functions are too long to be said twice.
\ir 0003_turns.sql
\ir group_functions.sql
\ir retention_functions.sql

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

\ir add_session_lock_fields.sql

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
    PRIMARY KEY (device_id, message_id)
);

CREATE INDEX conversation_messages_open ON @schema.conversation_messages (device_id, arrival)
    WHERE status IN ('waiting', 'running');

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

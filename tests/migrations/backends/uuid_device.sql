-- A backend whose uuid key is called device_id, whose locks have no time, and which names the agent in a text column.
CREATE TABLE conversation_states (
    device_id    uuid PRIMARY KEY,
    active_agent text,
    state        jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE device_tokens (
    token     text PRIMARY KEY,
    device_id uuid NOT NULL REFERENCES conversation_states
);

INSERT INTO conversation_states (device_id, active_agent) VALUES
    ('00000000-0000-4000-8000-000000000001', 'scheduling'),
    ('00000000-0000-4000-8000-000000000004', NULL);
INSERT INTO device_tokens VALUES ('t-1', '00000000-0000-4000-8000-000000000001');

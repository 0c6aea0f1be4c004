-- A backend that calls its uuid key device_id, has no time of a lock, and names the agent in a text.
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

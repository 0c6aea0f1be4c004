-- A backend whose rows need a value that only the backend knows.
CREATE TABLE conversation_states (
    device_id text PRIMARY KEY,
    tenant    text NOT NULL,
    state     jsonb NOT NULL DEFAULT '{}'
);
INSERT INTO conversation_states (device_id, tenant) VALUES ('device-1', 'north'), ('device-2', 'south');

-- A backend with a uuid key that it makes itself, another table that refers to it, and a trigger of its own.
CREATE TABLE conversation_states (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    current_step varchar(100) NOT NULL DEFAULT 'greeting',
    context      jsonb NOT NULL DEFAULT '{}',
    active_agent varchar(50),
    locked_at    timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE conversation_notes (
    note_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state_id uuid NOT NULL REFERENCES conversation_states (id) ON DELETE CASCADE,
    note     text NOT NULL
);

CREATE FUNCTION touch_conversation_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER touch BEFORE UPDATE ON conversation_states
    FOR EACH ROW EXECUTE FUNCTION touch_conversation_state();

INSERT INTO conversation_states (id, active_agent, locked_at, updated_at) VALUES
    ('00000000-0000-4000-8000-000000000001', 'scheduling', now() - interval '1 hour', now() - interval '1 hour'),
    ('00000000-0000-4000-8000-000000000002', 'scheduling', now() - interval '3 days', now() - interval '3 days'),
    ('00000000-0000-4000-8000-000000000003', 'billing', NULL, now() - interval '9 days'),
    ('00000000-0000-4000-8000-000000000004', NULL, NULL, now() - interval '9 days');
INSERT INTO conversation_notes (state_id, note) VALUES
    ('00000000-0000-4000-8000-000000000001', 'prefers mornings'),
    ('00000000-0000-4000-8000-000000000004', 'asked for a human');

-- What the next version of the schema may do while code of this version runs.

ALTER TABLE @schema.conversation_states ADD COLUMN region text;

ALTER TABLE @schema.conversation_messages ADD COLUMN language text NOT NULL DEFAULT 'en';

ALTER TABLE @schema.conversation_turns ADD COLUMN cost numeric NOT NULL DEFAULT 0;

ALTER TABLE @schema.conversation_effects ADD COLUMN tags text[];

ALTER TABLE @schema.conversation_checkpoints ADD COLUMN size integer;

CREATE INDEX conversation_turns_by_time ON @schema.conversation_turns (device_id, committed_at);

-- Replaced under the same name: older code goes on calling it.
CREATE OR REPLACE FUNCTION @schema.moorline_asks(device text, last_turn_no bigint, interrupt_id text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM @schema.conversation_turns t
        WHERE t.device_id = device AND t.turn_no = last_turn_no AND t.interrupt->>'id'::text = interrupt_id);
END
$$;

-- A successor: older code goes on calling moorline_heartbeat.
CREATE FUNCTION @schema.moorline_heartbeat_2(
    device text, claim uuid, lease_seconds double precision, of_region text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    UPDATE @schema.conversation_states s SET region = of_region WHERE s.device_id = device AND s.claim_id = claim;
    RETURN FOUND AND @schema.moorline_heartbeat(device, claim, lease_seconds);
END
$$;

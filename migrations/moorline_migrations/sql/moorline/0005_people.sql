-- People: a device is an address that leads to a conversation. The head of schema.sql explains the columns.

ALTER TABLE @schema.conversation_states
    ADD COLUMN leads_to text,
    ADD COLUMN linked_at timestamptz,
    ADD COLUMN earlier text[],
    ADD COLUMN notices jsonb;

CREATE INDEX idx_conversation_states_leads_to ON @schema.conversation_states (leads_to) WHERE leads_to IS NOT NULL;

COMMENT ON COLUMN @schema.conversation_states.leads_to IS 'Added by Moorline: the conversation that the device joined';
COMMENT ON COLUMN @schema.conversation_states.linked_at IS 'Added by Moorline: when the device joined it';
COMMENT ON COLUMN @schema.conversation_states.earlier IS 'Added by Moorline: the conversations that the device has left';
COMMENT ON COLUMN @schema.conversation_states.notices IS 'Added by Moorline: what each device is told with its next reply';
COMMENT ON INDEX @schema.idx_conversation_states_leads_to IS 'Added by Moorline: the devices that joined a conversation';

ALTER TABLE @schema.conversation_messages
    ADD COLUMN address text,
    ADD COLUMN joins text,
    ADD COLUMN notice text;

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

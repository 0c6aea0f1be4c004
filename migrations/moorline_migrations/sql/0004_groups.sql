-- Turns of many devices are begun and committed in one statement, and a turn's updates stay within their pages.

-- Brings open_messages: the messages of a device's open turn are found without an index on what every turn changes.
\ir add_session_lock_fields.sql

ALTER TABLE @schema.conversation_messages
    ADD COLUMN queued boolean NOT NULL GENERATED ALWAYS AS (status = 'waiting') STORED;
ALTER TABLE @schema.conversation_messages SET (fillfactor = 85);
DROP INDEX @schema.conversation_messages_open;
CREATE INDEX conversation_messages_queued ON @schema.conversation_messages (device_id, arrival) WHERE queued;

\ir group_functions.sql
\ir retention_functions.sql

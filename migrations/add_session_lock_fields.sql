-- Adds to an existing conversation_states what Moorline needs, from the root of the repository, in psql:
--     \i migrations/add_session_lock_fields.sql
\ir moorline_migrations/sql/add_session_lock_fields.sql

-- Conditions that are written in one place. A statement says `@lock_is_live(moment)`, and the loader puts the condition
-- there; the device's row must be called `s`. The functions of the schema have the conditions written out, and a test
-- compares.

-- fragment: last_used
-- When the device was last active or its lock was taken, which counts a backend that writes only active_agent and
-- locked_at.
greatest(s.last_active_at, s.locked_at)

-- fragment: time_to_live
-- What the call that set the lock asked for, else what the person has, else what the last agent or the default gave.
coalesce(s.call_ttl, s.person_ttl, s.session_ttl)::double precision * interval '1 second'

-- fragment: expires_at
coalesce(s.session_until, @last_used + @time_to_live)

-- fragment: lock_is_live(moment)
s.active_agent IS NOT NULL AND coalesce(@moment < s.session_until, @moment - @last_used < @time_to_live)

-- fragment: claim_stands(claim)
s.claim_id = @claim

-- fragment: is_forgotten(days)
-- Whether nothing but the row is left of a device that nobody has used for so many days. A device that was never
-- answered was last used when it sent its message, of which nothing is left either.
s.claim_id IS NULL AND (s.leads_to IS NULL OR s.linked_at IS NULL) AND s.earlier IS NULL AND s.given_away IS NULL
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_states o WHERE o.leads_to = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.moorline_people p WHERE p.device_id = s.device_id::text)
    AND NOT (@lock_is_live(pg_catalog.statement_timestamp()))
    AND coalesce(
        pg_catalog.statement_timestamp() - @last_used > @days::double precision * interval '1 day', s.arrivals > 0)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_messages m WHERE m.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_turns t WHERE t.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_effects e WHERE e.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_checkpoints c WHERE c.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_values v WHERE v.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_writes w WHERE w.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_files f WHERE f.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_sessions n WHERE n.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_days d WHERE d.device_id = s.device_id::text)
    AND NOT EXISTS (SELECT 1 FROM @schema.conversation_facts f WHERE f.device_id = s.device_id::text)

-- Conditions that are written in one place. A statement says `@lock_is_live(moment)`, and the loader puts the condition
-- there; the device's row must be called `s`. The functions of the schema have the conditions written out, and a test
-- compares.

-- fragment: last_used
-- When the device was last active or its lock was taken, which counts a backend that writes only active_agent and
-- locked_at.
greatest(s.last_active_at, s.locked_at)

-- fragment: time_to_live
s.session_ttl::double precision * interval '1 second'

-- fragment: lock_is_live(moment)
s.active_agent IS NOT NULL AND @moment - @last_used < @time_to_live

-- fragment: claim_stands(claim)
s.claim_id = @claim

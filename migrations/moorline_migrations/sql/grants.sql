-- Two roles for a schema of Moorline: moorline_owner migrates and owns the tables, moorline_app runs. Change the names
-- to yours, and `public` to the schema of MOORLINE_SCHEMA; run it as moorline_owner after each `moorline migrate`.
--
-- Before the first migration, a superuser or the owner of the database says:
--     GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner;
-- or, for a schema of its own:
--     CREATE SCHEMA moorline AUTHORIZATION moorline_owner;
-- A conversation_states that a backend had before must belong to moorline_owner or to a role it is a member of.

-- Functions are named one by one: others in the schema are none of its business.

GRANT USAGE ON SCHEMA public TO moorline_app;

-- Conversations.
GRANT SELECT ON public.moorline_schema, public.moorline_keys, public.expired_sessions TO moorline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    public.conversation_states,
    public.conversation_messages,
    public.conversation_turns,
    public.conversation_checkpoints,
    public.conversation_values,
    public.conversation_writes,
    public.conversation_effects
TO moorline_app;
GRANT USAGE ON SEQUENCE public.conversation_fences TO moorline_app;
GRANT EXECUTE ON FUNCTION
    public.moorline_abandon_1,
    public.moorline_abandon_2,
    public.moorline_answer_2,
    public.moorline_begin_1,
    public.moorline_begin_2,
    public.moorline_checkpoint_1,
    public.moorline_claim_1,
    public.moorline_claim_2,
    public.moorline_claimed_1,
    public.moorline_claimed_2,
    public.moorline_commit_1,
    public.moorline_commit_2,
    public.moorline_drop_2,
    public.moorline_heartbeat_1,
    public.moorline_history_1,
    public.moorline_history_2,
    public.moorline_merged_1,
    public.moorline_merged_2,
    public.moorline_prune_2,
    public.moorline_release_1,
    public.moorline_release_2,
    public.moorline_retire_2,
    public.moorline_running_2,
    public.moorline_stored_2,
    public.moorline_take_2,
    public.moorline_withdraw_1,
    public.moorline_withdraw_2
TO moorline_app;

-- Appointments, where the scheduling agent is used. A component of your own gets its rights in the same way, those on
-- its erase and export functions included: every erasure calls them as moorline_app.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    public.appointment_services,
    public.appointment_providers,
    public.appointment_offers,
    public.appointment_hours,
    public.appointment_closures,
    public.appointments
TO moorline_app;
GRANT USAGE ON SEQUENCE
    public.appointment_services_service_id_seq,
    public.appointment_providers_provider_id_seq
TO moorline_app;
GRANT EXECUTE ON FUNCTION public.scheduling_erase, public.scheduling_export TO moorline_app;

-- Two roles for a schema of Moorline: moorline_owner migrates and owns the tables, moorline_app runs. Change the names
-- to yours, and `public` to the schema of MOORLINE_SCHEMA; run it as moorline_owner after each `moorline migrate`.
--
-- Before the first migration, a superuser or the owner of the database says:
--     GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner;
-- or, for a schema of its own:
--     CREATE SCHEMA moorline AUTHORIZATION moorline_owner;
-- A conversation_states that a backend had before must belong to moorline_owner or to a role it is a member of.

GRANT USAGE ON SCHEMA public TO moorline_app;
GRANT SELECT ON public.moorline_schema, public.expired_sessions TO moorline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    public.conversation_states,
    public.conversation_messages,
    public.conversation_turns,
    public.conversation_checkpoints,
    public.conversation_values,
    public.conversation_writes,
    public.conversation_effects,
    public.appointment_services,
    public.appointment_providers,
    public.appointment_offers,
    public.appointment_hours,
    public.appointment_closures,
    public.appointments
TO moorline_app;
GRANT USAGE ON SEQUENCE
    public.conversation_fences,
    public.appointment_services_service_id_seq,
    public.appointment_providers_provider_id_seq
TO moorline_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO moorline_app;

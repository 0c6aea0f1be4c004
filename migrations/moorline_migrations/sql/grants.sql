-- Two roles for Moorline's schema: moorline_owner migrates and owns the tables, moorline_app runs the application.
-- Replace the names with yours, and `public` with the schema of MOORLINE_SCHEMA; run this as moorline_owner after each
-- `moorline migrate`.
--
-- Before the first migration, a superuser or the owner of the database runs:
--     GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner;
-- or, for a schema of its own:
--     CREATE SCHEMA moorline AUTHORIZATION moorline_owner;
-- A conversation_states that a backend had before must belong to moorline_owner or to a role of which it is a member.

-- Functions are named one by one: moorline_app gets no right to others in the schema.

GRANT USAGE ON SCHEMA public TO moorline_app;

-- Conversations.
GRANT SELECT ON public.moorline_schema, public.moorline_keys, public.expired_sessions, public.turn_figures
    TO moorline_app;
GRANT SELECT, UPDATE ON public.moorline_cleanups TO moorline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    public.conversation_states,
    public.conversation_messages,
    public.conversation_turns,
    public.conversation_checkpoints,
    public.conversation_values,
    public.conversation_writes,
    public.conversation_effects,
    public.conversation_files,
    public.conversation_facts,
    public.conversation_sessions,
    public.conversation_days,
    public.moorline_codes,
    public.moorline_days,
    public.moorline_people,
    public.moorline_revocations,
    public.moorline_tries
TO moorline_app;
GRANT EXECUTE ON FUNCTION
    public.moorline_abandon,
    public.moorline_add_days,
    public.moorline_ancestors,
    public.moorline_answer,
    public.moorline_asks,
    public.moorline_begin,
    public.moorline_begin_2,
    public.moorline_cancel,
    public.moorline_checkpoint,
    public.moorline_checkpoints,
    public.moorline_claim,
    public.moorline_claim_2,
    public.moorline_claim_cleanup,
    public.moorline_claimed,
    public.moorline_clear_expired_locks,
    public.moorline_clear_lock,
    public.moorline_clear_lock_2,
    public.moorline_commit,
    public.moorline_commit_2,
    public.moorline_conversation,
    public.moorline_copy,
    public.moorline_delete_runs,
    public.moorline_delta_channels,
    public.moorline_depart,
    public.moorline_devices,
    public.moorline_discard,
    public.moorline_drop_messages,
    public.moorline_effects_kept,
    public.moorline_end_cleanup,
    public.moorline_end_session,
    public.moorline_erase,
    public.moorline_erase_conversation,
    public.moorline_erase_device,
    public.moorline_erase_everywhere,
    public.moorline_erase_person,
    public.moorline_expire_facts,
    public.moorline_expire_files,
    public.moorline_expire_locks,
    public.moorline_export,
    public.moorline_export_everywhere,
    public.moorline_forget_codes,
    public.moorline_forget_revocations,
    public.moorline_given_id,
    public.moorline_head,
    public.moorline_heartbeat,
    public.moorline_history,
    public.moorline_hold,
    public.moorline_is_others,
    public.moorline_join,
    public.moorline_keep_facts,
    public.moorline_keep_file,
    public.moorline_key,
    public.moorline_know_person,
    public.moorline_known,
    public.moorline_leaving,
    public.moorline_marked,
    public.moorline_new_code,
    public.moorline_new_conversation,
    public.moorline_orphan,
    public.moorline_pending,
    public.moorline_place,
    public.moorline_prune,
    public.moorline_prune_all,
    public.moorline_prune_to_latest,
    public.moorline_put,
    public.moorline_queue_full,
    public.moorline_record_session,
    public.moorline_recount,
    public.moorline_redeem,
    public.moorline_release,
    public.moorline_remove_days,
    public.moorline_requeue,
    public.moorline_retire,
    public.moorline_retry_after,
    public.moorline_revoke,
    public.moorline_rewind,
    public.moorline_roll_up,
    public.moorline_session,
    public.moorline_set_lock,
    public.moorline_set_lock_2,
    public.moorline_set_person_ttl,
    public.moorline_stop,
    public.moorline_stored,
    public.moorline_stored_id,
    public.moorline_unfinished,
    public.moorline_whose,
    public.moorline_withdraw,
    public.moorline_withdraw_2
TO moorline_app;

-- Appointments, if the scheduling agent is used. Grant what a component of your own needs in the same way, including
-- its erase and export functions, which every erasure and export calls as moorline_app.
DO $$
BEGIN
    IF pg_catalog.to_regprocedure('public.scheduling_erase(text)') IS NULL THEN
        RETURN;
    END IF;
    GRANT SELECT, INSERT, UPDATE, DELETE ON public.appointments TO moorline_app;
    -- The catalogue is what models are told, so the role of their tools only reads it: moorline_owner fills it, or a role
    -- of yours.
    REVOKE ALL ON
        public.appointment_services,
        public.appointment_providers,
        public.appointment_offers,
        public.appointment_hours,
        public.appointment_closures
    FROM moorline_app;
    GRANT SELECT ON
        public.appointment_services,
        public.appointment_providers,
        public.appointment_offers,
        public.appointment_hours,
        public.appointment_closures
    TO moorline_app;
    REVOKE ALL ON SEQUENCE
        public.appointment_services_service_id_seq,
        public.appointment_providers_provider_id_seq
    FROM moorline_app;
    GRANT EXECUTE ON FUNCTION public.scheduling_erase, public.scheduling_export TO moorline_app;
END
$$;

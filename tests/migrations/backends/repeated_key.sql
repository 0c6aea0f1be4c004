-- A backend that writes one row for each visit: its key is a text that occurs as often as there were visits.
CREATE TABLE conversation_states (
    id                 bigserial PRIMARY KEY,
    patient_profile_id varchar(64) NOT NULL,
    flow               text NOT NULL DEFAULT 'intake',
    active_agent       varchar(30),
    locked_at          timestamp,
    created_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON conversation_states (patient_profile_id);

INSERT INTO conversation_states (id, patient_profile_id, active_agent, locked_at, created_at) VALUES
    (1, 'patient-1', 'scheduling', now() - interval '8 days', now() - interval '8 days'),
    (2, 'patient-1', 'scheduling', now() - interval '2 hours', now() - interval '2 hours'),
    (3, 'patient-1', NULL, NULL, now() - interval '1 hour'),
    (4, 'patient-2', NULL, NULL, now() - interval '2 days'),
    (5, 'patient-2', NULL, NULL, now() - interval '1 day'),
    (6, 'patient-3', 'billing', now() - interval '3 days', now() - interval '3 days'),
    (7, 'patient-4', 'scheduling', now() - interval '5 hours', now() - interval '5 hours'),
    (8, 'patient-4', NULL, now() - interval '1 hour', now() - interval '1 hour');
SELECT setval('conversation_states_id_seq', 8);

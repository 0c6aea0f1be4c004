-- Time around a visit, several visits at once, and whom an appointment is for.

ALTER TABLE @schema.appointment_services
    ADD COLUMN buffer_before integer NOT NULL DEFAULT 0 CHECK (buffer_before >= 0),
    ADD COLUMN buffer_after  integer NOT NULL DEFAULT 0 CHECK (buffer_after >= 0);

ALTER TABLE @schema.appointment_providers
    ADD COLUMN capacity integer NOT NULL DEFAULT 1 CHECK (capacity > 0);

-- Appointments by code of before occupy no more than their time.
ALTER TABLE @schema.appointments
    ADD COLUMN occupies tstzrange CHECK (occupies OPERATOR(pg_catalog.@>) during),
    ADD COLUMN seat     integer NOT NULL DEFAULT 1 CHECK (seat > 0),
    ADD COLUMN name     text,
    ADD COLUMN note     text;

ALTER TABLE @schema.appointments DROP CONSTRAINT appointments_one_at_a_time;
ALTER TABLE @schema.appointments
    ADD CONSTRAINT appointments_one_at_a_time
        EXCLUDE USING gist (
            pg_catalog.int8range(provider_id, provider_id, '[]') WITH OPERATOR(pg_catalog.&&),
            pg_catalog.int4range(seat, seat, '[]') WITH OPERATOR(pg_catalog.&&),
            (coalesce(occupies, during)) WITH OPERATOR(pg_catalog.&&))
        WHERE (status = 'booked');

-- For the staff, who ask what there is on a day.
CREATE INDEX appointments_starts ON @schema.appointments (pg_catalog.lower(during));

-- Erase: leaves no trace of the device. Past appointments are deleted; those to come are cancelled and get the empty
-- device ID, so that the time is free again and the staff see the cancellation. An import may have brought back one that
-- an earlier erasure has left.
CREATE OR REPLACE FUNCTION @schema.scheduling_erase(device text) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
BEGIN
    DELETE FROM @schema.appointments a WHERE a.device_id = device AND pg_catalog.lower(a.during) <= moment;
    DELETE FROM @schema.appointments n
        WHERE n.device_id = '' AND EXISTS (
            SELECT 1 FROM @schema.appointments a WHERE a.device_id = device AND a.appointment_id = n.appointment_id);
    UPDATE @schema.appointments a SET device_id = '', status = 'cancelled', name = NULL, note = NULL
        WHERE a.device_id = device;
END
$$;

-- Export: all appointments of the device, by time, as an array.
CREATE OR REPLACE FUNCTION @schema.scheduling_export(device text) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'appointment_id', a.appointment_id,
                'service', s.name,
                'provider', p.name,
                'time_zone', p.time_zone,
                'starts', pg_catalog.lower(a.during),
                'ends', pg_catalog.upper(a.during),
                'status', a.status,
                'name', a.name,
                'note', a.note,
                'created_at', a.created_at
            ) ORDER BY pg_catalog.lower(a.during), a.appointment_id), '[]'::jsonb)
        FROM @schema.appointments a
        JOIN @schema.appointment_services s ON s.service_id = a.service_id
        JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
        WHERE a.device_id = device
    );
END
$$;

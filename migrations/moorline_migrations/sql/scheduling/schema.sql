-- Appointments, for the scheduling agent: the whole schema of this component as its numbered files leave it. This file
-- is for reading: `moorline migrate` runs the numbered files, and a test checks that both make the same schema.
--
--   appointment_services      what can be booked, and how long it takes
--   appointment_providers     who provides services, and in which time zone
--   appointment_offers        which provider offers which service
--   appointment_hours         opening hours: one row for each span of a weekday, in the provider's wall-clock time. An
--                             appointment lies within one of them
--   appointment_closures      the days a provider is closed: hours that begin on them do not count
--   appointments              what is booked, by device. A provider has as many seats as their capacity, and an
--                             appointment has one of them for the time that it occupies: its own (during), and the
--                             buffers of its service. Two on one seat cannot overlap, nor can two of one device. The
--                             device ID is empty if the device was erased before the appointment took place
--
-- scheduling_erase and scheduling_export are registered in moorline_schema: every erasure calls the first, every export
-- the second.

CREATE TABLE @schema.appointment_services (
    service_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    minutes    integer NOT NULL CHECK (minutes > 0),
    -- Minutes around a visit in which its provider's seat is taken, too.
    buffer_before integer NOT NULL DEFAULT 0 CHECK (buffer_before >= 0),
    buffer_after  integer NOT NULL DEFAULT 0 CHECK (buffer_after >= 0)
);

CREATE TABLE @schema.appointment_providers (
    provider_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    time_zone   text NOT NULL,
    capacity    integer NOT NULL DEFAULT 1 CHECK (capacity > 0)
);

CREATE TABLE @schema.appointment_offers (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    service_id  bigint REFERENCES @schema.appointment_services ON DELETE CASCADE,
    PRIMARY KEY (provider_id, service_id)
);

-- Wall-clock hours in the provider's time zone; weekday 1 is Monday, as in ISO 8601. Hours that close earlier than they
-- open end on the next day.
CREATE TABLE @schema.appointment_hours (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    weekday     smallint CHECK (weekday BETWEEN 1 AND 7),
    opens       time,
    closes      time NOT NULL,
    PRIMARY KEY (provider_id, weekday, opens),
    CHECK (opens <> closes)
);

CREATE TABLE @schema.appointment_closures (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    day         date,
    PRIMARY KEY (provider_id, day)
);

-- The exclusions compare providers and devices as ranges of one number, which needs no extension. The number of a device
-- is half the hash of its ID (a range must be able to end behind it): two devices have the same one in 2^63 cases.
CREATE TABLE @schema.appointments (
    device_id      text,
    appointment_id uuid DEFAULT pg_catalog.gen_random_uuid(),
    provider_id    bigint NOT NULL REFERENCES @schema.appointment_providers,
    service_id     bigint NOT NULL REFERENCES @schema.appointment_services,
    during         tstzrange NOT NULL CHECK (NOT pg_catalog.isempty(during)),
    status         text NOT NULL DEFAULT 'booked' CHECK (status IN ('booked', 'cancelled')),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- Null: no more than its time.
    occupies       tstzrange CHECK (occupies OPERATOR(pg_catalog.@>) during),
    seat           integer NOT NULL DEFAULT 1 CHECK (seat > 0),
    name           text,
    note           text,
    PRIMARY KEY (device_id, appointment_id),
    CONSTRAINT appointments_one_at_a_time
        EXCLUDE USING gist (
            pg_catalog.int8range(provider_id, provider_id, '[]') WITH OPERATOR(pg_catalog.&&),
            pg_catalog.int4range(seat, seat, '[]') WITH OPERATOR(pg_catalog.&&),
            (coalesce(occupies, during)) WITH OPERATOR(pg_catalog.&&))
        WHERE (status = 'booked'),
    CONSTRAINT appointments_one_place_at_a_time
        EXCLUDE USING gist (
            pg_catalog.int8range(
                pg_catalog.hashtextextended(device_id, 0::bigint) OPERATOR(pg_catalog./) 2::bigint,
                pg_catalog.hashtextextended(device_id, 0::bigint) OPERATOR(pg_catalog./) 2::bigint, '[]'
            ) WITH OPERATOR(pg_catalog.&&),
            during WITH OPERATOR(pg_catalog.&&))
        WHERE (status = 'booked')
);

-- For the staff, who ask what there is on a day.
CREATE INDEX appointments_starts ON @schema.appointments (pg_catalog.lower(during));

-- Erase: leaves no trace of the device. Past appointments are deleted; those to come are cancelled and get the empty
-- device ID, so that the time is free again and the staff see the cancellation. An import may have brought back one that
-- an earlier erasure has left.
CREATE FUNCTION @schema.scheduling_erase(device text) RETURNS void
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
CREATE FUNCTION @schema.scheduling_export(device text) RETURNS jsonb
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

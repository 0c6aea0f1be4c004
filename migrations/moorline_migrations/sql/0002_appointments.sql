-- Appointments: what the scheduling agent offers and books.

CREATE TABLE @schema.appointment_services (
    service_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    minutes    integer NOT NULL CHECK (minutes > 0)
);

CREATE TABLE @schema.appointment_providers (
    provider_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    time_zone   text NOT NULL
);

CREATE TABLE @schema.appointment_offers (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    service_id  bigint REFERENCES @schema.appointment_services ON DELETE CASCADE,
    PRIMARY KEY (provider_id, service_id)
);

-- Wall-clock hours in the provider's time zone; weekday 1 is Monday, as in ISO 8601.
CREATE TABLE @schema.appointment_hours (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    weekday     smallint CHECK (weekday BETWEEN 1 AND 7),
    opens       time,
    closes      time NOT NULL,
    PRIMARY KEY (provider_id, weekday, opens),
    CHECK (opens < closes)
);

CREATE TABLE @schema.appointment_closures (
    provider_id bigint REFERENCES @schema.appointment_providers ON DELETE CASCADE,
    day         date,
    PRIMARY KEY (provider_id, day)
);

-- The exclusion takes the provider as a range of one number: that needs no extension.
CREATE TABLE @schema.appointments (
    device_id      text,
    appointment_id uuid DEFAULT gen_random_uuid(),
    provider_id    bigint NOT NULL REFERENCES @schema.appointment_providers,
    service_id     bigint NOT NULL REFERENCES @schema.appointment_services,
    during         tstzrange NOT NULL CHECK (NOT isempty(during)),
    status         text NOT NULL DEFAULT 'booked' CHECK (status IN ('booked', 'cancelled')),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (device_id, appointment_id),
    CONSTRAINT appointments_one_at_a_time
        EXCLUDE USING gist (int8range(provider_id, provider_id, '[]') WITH &&, during WITH &&)
        WHERE (status = 'booked')
);

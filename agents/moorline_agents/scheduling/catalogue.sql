-- The statements of catalogue_store.py.

-- name: one_at_a_time
-- The first statement of an import: the next one waits here until this one is done.
SELECT v.version
FROM @schema.moorline_schema v
WHERE v.component = 'scheduling'
FOR UPDATE;

-- name: after_bookings
-- What is being booked now is booked before the import goes on, and what is booked from now on waits for its end. In the
-- order of a booking's foreign keys.
SELECT p.provider_id FROM @schema.appointment_providers p ORDER BY p.provider_id FOR UPDATE;

-- name: put_services
INSERT INTO @schema.appointment_services (name, minutes, buffer_before, buffer_after)
SELECT n.name, n.minutes, n.buffer_before, n.buffer_after
FROM unnest($1::text[], $2::integer[], $3::integer[], $4::integer[])
    AS n (name, minutes, buffer_before, buffer_after)
ON CONFLICT (name) DO UPDATE
SET minutes = excluded.minutes, buffer_before = excluded.buffer_before, buffer_after = excluded.buffer_after;

-- name: put_providers
INSERT INTO @schema.appointment_providers (name, time_zone, capacity)
SELECT n.name, n.time_zone, n.capacity
FROM unnest($1::text[], $2::text[], $3::integer[]) AS n (name, time_zone, capacity)
ON CONFLICT (name) DO UPDATE SET time_zone = excluded.time_zone, capacity = excluded.capacity;

-- name: clear_offers
DELETE FROM @schema.appointment_offers;

-- name: put_offers
INSERT INTO @schema.appointment_offers (provider_id, service_id)
SELECT p.provider_id, s.service_id
FROM unnest($1::text[], $2::text[]) AS n (provider, service)
JOIN @schema.appointment_providers p ON p.name = n.provider
JOIN @schema.appointment_services s ON s.name = n.service;

-- name: clear_hours
DELETE FROM @schema.appointment_hours;

-- name: put_hours
INSERT INTO @schema.appointment_hours (provider_id, weekday, opens, closes)
SELECT p.provider_id, n.weekday, n.opens, n.closes
FROM unnest($1::text[], $2::smallint[], $3::text[]::time[], $4::text[]::time[])
    AS n (provider, weekday, opens, closes)
JOIN @schema.appointment_providers p ON p.name = n.provider;

-- name: clear_closures
DELETE FROM @schema.appointment_closures;

-- name: put_closures
INSERT INTO @schema.appointment_closures (provider_id, day)
SELECT p.provider_id, n.day
FROM unnest($1::text[], $2::date[]) AS n (provider, day)
JOIN @schema.appointment_providers p ON p.name = n.provider;

-- name: drop_services
-- Those that nobody offers any more; what has appointments stays for them.
DELETE FROM @schema.appointment_services s
WHERE s.name <> ALL ($1::text[])
    AND NOT EXISTS (SELECT 1 FROM @schema.appointments a WHERE a.service_id = s.service_id);

-- name: drop_providers
DELETE FROM @schema.appointment_providers p
WHERE p.name <> ALL ($1::text[])
    AND NOT EXISTS (SELECT 1 FROM @schema.appointments a WHERE a.provider_id = p.provider_id);

-- name: services
-- Without those that are only there for old appointments.
SELECT s.name, s.minutes, s.buffer_before, s.buffer_after
FROM @schema.appointment_services s
WHERE EXISTS (SELECT 1 FROM @schema.appointment_offers o WHERE o.service_id = s.service_id)
ORDER BY s.name;

-- name: providers
SELECT p.provider_id, p.name, p.time_zone, p.capacity,
       (SELECT pg_catalog.array_agg(s.name ORDER BY s.name)
        FROM @schema.appointment_offers o
        JOIN @schema.appointment_services s ON s.service_id = o.service_id
        WHERE o.provider_id = p.provider_id) AS offers,
       (SELECT pg_catalog.array_agg(c.day ORDER BY c.day)
        FROM @schema.appointment_closures c
        WHERE c.provider_id = p.provider_id) AS closures
FROM @schema.appointment_providers p
WHERE EXISTS (SELECT 1 FROM @schema.appointment_offers o WHERE o.provider_id = p.provider_id)
ORDER BY p.name;

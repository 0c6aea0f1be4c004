-- The statements of repository.py. What is a device's takes $1, the device, first.

-- name: offers
-- The whole catalogue: every service with every provider who offers it.
SELECT s.service_id, s.name AS service, s.minutes, p.provider_id, p.name AS provider, p.time_zone
FROM @schema.appointment_offers o
JOIN @schema.appointment_services s ON s.service_id = o.service_id
JOIN @schema.appointment_providers p ON p.provider_id = o.provider_id
ORDER BY s.name, p.name;

-- name: hours
-- In minutes since midnight, because the end of a day, 24:00, is no time in Python.
SELECT provider_id, weekday,
       (extract(epoch FROM opens) / 60::numeric)::integer AS opens,
       (extract(epoch FROM closes) / 60::numeric)::integer AS closes
FROM @schema.appointment_hours
WHERE provider_id = ANY ($1::bigint[])
ORDER BY provider_id, weekday, opens;

-- name: closures
SELECT provider_id, day
FROM @schema.appointment_closures
WHERE provider_id = ANY ($1::bigint[]) AND day BETWEEN $2 AND $3;

-- name: busy
-- Of all devices: times only. Written like the exclusion constraint, so that its index serves.
SELECT a.provider_id, pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends
FROM pg_catalog.unnest($1::bigint[]) AS wanted (provider_id)
JOIN @schema.appointments a
    ON pg_catalog.int8range(a.provider_id, a.provider_id, '[]')
        OPERATOR(pg_catalog.&&) pg_catalog.int8range(wanted.provider_id, wanted.provider_id, '[]')
    AND a.during OPERATOR(pg_catalog.&&) pg_catalog.tstzrange($2, $3)
    AND a.status = 'booked'
ORDER BY a.provider_id, starts;

-- name: upcoming
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND a.status = 'booked' AND pg_catalog.lower(a.during) > $2
ORDER BY starts, a.appointment_id
LIMIT $3;

-- name: same
-- What a device has booked already of a service at one of these starts, each with one of these providers.
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status
FROM unnest($3::bigint[], $4::timestamptz[]) AS wanted (provider_id, starts)
JOIN @schema.appointments a ON a.provider_id = wanted.provider_id AND pg_catalog.lower(a.during) = wanted.starts
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND a.service_id = $2 AND a.status = 'booked'
ORDER BY a.appointment_id
LIMIT 1;

-- name: referred
-- By the eight hexadecimal digits with which the appointment's ID begins.
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND pg_catalog.left(a.appointment_id::text, 8) = $2
ORDER BY a.appointment_id
LIMIT 2;

-- name: book
-- No row where the provider has something else then, committed or about to be: it waits for whoever came first.
-- An UPDATE or a plain INSERT would make two at once wait for each other.
INSERT INTO @schema.appointments (device_id, appointment_id, provider_id, service_id, during, status)
VALUES ($1, coalesce($2::uuid, pg_catalog.gen_random_uuid()), $3, $4, pg_catalog.tstzrange($5, $6), 'booked')
ON CONFLICT DO NOTHING
RETURNING appointment_id;

-- name: cancel
UPDATE @schema.appointments SET status = 'cancelled'
WHERE device_id = $1 AND appointment_id = $2 AND status = 'booked'
RETURNING appointment_id;

-- name: take_out
-- The first half of a move; `book` with the same ID is the other, in the same transaction.
DELETE FROM @schema.appointments
WHERE device_id = $1 AND appointment_id = $2 AND status = 'booked'
RETURNING appointment_id;

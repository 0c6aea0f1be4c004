-- The statements of repository.py. A statement about one device takes it as $1.

-- name: offers
-- The whole catalogue: every service with every provider who offers it. An import writes each provider's row anew.
SELECT s.service_id, s.name AS service, s.minutes, s.buffer_before, s.buffer_after, p.provider_id, p.name AS provider,
       p.time_zone, p.capacity, p.xmin::text AS version
FROM @schema.appointment_offers o
JOIN @schema.appointment_services s ON s.service_id = o.service_id
JOIN @schema.appointment_providers p ON p.provider_id = o.provider_id
ORDER BY s.name, p.name;

-- name: hours
-- In minutes since the midnight of the weekday, because Python has no time 24:00, and hours may end on the next day.
SELECT provider_id, weekday,
       (extract(epoch FROM opens) / 60::numeric)::integer AS opens,
       (extract(epoch FROM closes) / 60::numeric)::integer + CASE WHEN closes < opens THEN 1440 ELSE 0 END AS closes
FROM @schema.appointment_hours
WHERE provider_id = ANY ($1::bigint[])
ORDER BY provider_id, weekday, opens;

-- name: closures
SELECT provider_id, day
FROM @schema.appointment_closures
WHERE provider_id = ANY ($1::bigint[]) AND day BETWEEN $2 AND $3;

-- name: busy
-- The times at which seats of providers are taken, whatever the device. Written like the exclusion constraint, to use
-- its index.
SELECT a.provider_id, a.seat, pg_catalog.lower(coalesce(a.occupies, a.during)) AS starts,
       pg_catalog.upper(coalesce(a.occupies, a.during)) AS ends
FROM pg_catalog.unnest($1::bigint[]) AS wanted (provider_id)
JOIN @schema.appointments a
    ON pg_catalog.int8range(a.provider_id, a.provider_id, '[]')
        OPERATOR(pg_catalog.&&) pg_catalog.int8range(wanted.provider_id, wanted.provider_id, '[]')
    AND coalesce(a.occupies, a.during) OPERATOR(pg_catalog.&&) pg_catalog.tstzrange($2, $3)
    AND a.status = 'booked'
ORDER BY a.provider_id, starts;

-- name: upcoming
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone, p.capacity,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status, a.created_at,
       a.name, a.note
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND a.status = 'booked' AND pg_catalog.lower(a.during) > $2
ORDER BY starts, a.appointment_id
LIMIT $3;

-- name: held
-- What a device has booked that overlaps the time from $2 to $3.
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone, p.capacity,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status, a.created_at,
       a.name, a.note
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND a.status = 'booked' AND a.during OPERATOR(pg_catalog.&&) pg_catalog.tstzrange($2, $3)
ORDER BY starts;

-- name: upcoming_number
SELECT pg_catalog.count(*)
FROM @schema.appointments a
WHERE a.device_id = $1 AND a.status = 'booked' AND pg_catalog.lower(a.during) > $2;

-- name: on
-- What all devices have that begins from $1 until before $2, cancelled ones included, for the staff.
SELECT a.device_id, a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone,
       p.capacity, pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status, a.created_at,
       a.name, a.note
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE pg_catalog.lower(a.during) >= $1 AND pg_catalog.lower(a.during) < $2
ORDER BY starts, provider, a.appointment_id;

-- name: booked_lately
-- How many appointments a device has made in the last 24 hours, whatever became of them.
SELECT pg_catalog.count(*)
FROM @schema.appointments a
WHERE a.device_id = $1 AND a.created_at > pg_catalog.clock_timestamp() - interval '24 hours';

-- name: same
-- The appointments that a device already has for a service, at one of these starts with the provider that goes with it.
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone, p.capacity,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status, a.created_at,
       a.name, a.note
FROM unnest($3::bigint[], $4::timestamptz[]) AS wanted (provider_id, starts)
JOIN @schema.appointments a ON a.provider_id = wanted.provider_id AND pg_catalog.lower(a.during) = wanted.starts
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND a.service_id = $2 AND a.status = 'booked'
ORDER BY a.appointment_id
LIMIT 1;

-- name: referred
-- By the eight hexadecimal digits with which the appointment's ID begins.
SELECT a.appointment_id, a.service_id, s.name AS service, a.provider_id, p.name AS provider, p.time_zone, p.capacity,
       pg_catalog.lower(a.during) AS starts, pg_catalog.upper(a.during) AS ends, a.status, a.created_at,
       a.name, a.note
FROM @schema.appointments a
JOIN @schema.appointment_services s ON s.service_id = a.service_id
JOIN @schema.appointment_providers p ON p.provider_id = a.provider_id
WHERE a.device_id = $1 AND pg_catalog.left(a.appointment_id::text, 8) = $2
ORDER BY a.appointment_id
LIMIT 2;

-- name: book
-- Returns no row if the seat or the device is busy then. It waits for a transaction that has booked the time but not
-- committed. With an UPDATE or a plain INSERT, two at once would wait for each other. $2 and $3 are what a moved
-- appointment keeps.
INSERT INTO @schema.appointments (
    device_id, appointment_id, created_at, provider_id, service_id, during, status, occupies, seat, name, note)
VALUES ($1, coalesce($2::uuid, pg_catalog.gen_random_uuid()), coalesce($3::timestamptz, pg_catalog.clock_timestamp()),
        $4, $5, pg_catalog.tstzrange($6, $7), 'booked', pg_catalog.tstzrange($8, $9), $10, $11, $12)
ON CONFLICT DO NOTHING
RETURNING appointment_id, created_at;

-- name: version
-- Of a provider, as `offers` tells it.
SELECT p.xmin::text FROM @schema.appointment_providers p WHERE p.provider_id = $1;

-- name: cancel
UPDATE @schema.appointments SET status = 'cancelled'
WHERE device_id = $1 AND appointment_id = $2 AND status = 'booked'
RETURNING appointment_id;

-- name: take_out
-- The first half of a move; the second is `book` with the same ID, in the same transaction.
DELETE FROM @schema.appointments
WHERE device_id = $1 AND appointment_id = $2 AND status = 'booked'
RETURNING appointment_id;

-- name: seed_demo
-- Fills an empty catalogue, in the time zone $1. If two run it at once, one waits for the other and adds nothing.
WITH wanted_services (name, minutes) AS (
    VALUES ('Haircut', 30), ('Beard trim', 15), ('Colouring', 90), ('Consultation', 30), ('Dental check-up', 45)
), wanted_providers (name) AS (
    VALUES ('Ana'), ('Marc'), ('Dr. Weber')
), wanted_offers (provider, service) AS (
    VALUES ('Ana', 'Haircut'), ('Ana', 'Colouring'), ('Ana', 'Consultation'),
           ('Marc', 'Haircut'), ('Marc', 'Beard trim'),
           ('Dr. Weber', 'Dental check-up'), ('Dr. Weber', 'Consultation')
), wanted_hours (provider, first_day, last_day, opens, closes) AS (
    VALUES ('Ana', 1, 5, time '09:00', time '12:30'), ('Ana', 1, 5, time '13:30', time '18:00'),
           ('Marc', 2, 6, time '10:00', time '14:00'), ('Marc', 2, 6, time '15:00', time '19:00'),
           ('Dr. Weber', 1, 4, time '08:00', time '12:00'), ('Dr. Weber', 1, 4, time '14:00', time '17:00')
), services AS (
    INSERT INTO @schema.appointment_services (name, minutes)
    SELECT name, minutes FROM wanted_services
    WHERE NOT EXISTS (SELECT FROM @schema.appointment_services)
    ORDER BY name
    ON CONFLICT DO NOTHING
    RETURNING service_id, name
), providers AS (
    INSERT INTO @schema.appointment_providers (name, time_zone)
    SELECT name, $1::text FROM wanted_providers
    WHERE EXISTS (SELECT FROM services)
    ORDER BY name
    ON CONFLICT DO NOTHING
    RETURNING provider_id, name
), offers AS (
    INSERT INTO @schema.appointment_offers (provider_id, service_id)
    SELECT p.provider_id, s.service_id
    FROM wanted_offers w JOIN providers p ON p.name = w.provider JOIN services s ON s.name = w.service
), hours AS (
    INSERT INTO @schema.appointment_hours (provider_id, weekday, opens, closes)
    SELECT p.provider_id, weekday, w.opens, w.closes
    FROM wanted_hours w JOIN providers p ON p.name = w.provider,
         pg_catalog.generate_series(w.first_day, w.last_day) AS weekday
), closures AS (
    INSERT INTO @schema.appointment_closures (provider_id, day)
    SELECT p.provider_id, pg_catalog.make_date(year, holiday.month, holiday.day)
    FROM providers p,
         (VALUES (1, 1), (5, 1), (10, 3), (12, 25), (12, 26)) AS holiday (month, day),
         pg_catalog.generate_series(extract(year FROM pg_catalog.now())::integer, extract(year FROM pg_catalog.now())::integer + 1) AS year
)
SELECT pg_catalog.count(*) FROM services;

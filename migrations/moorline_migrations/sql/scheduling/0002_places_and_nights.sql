-- A person is in one place at a time, and opening hours may go past midnight. The head of schema.sql explains the tables.

-- Until here, two booked appointments of one device could overlap. Where they do, the constraint is refused: cancel one
-- of the two, then migrate again.
ALTER TABLE @schema.appointments ADD CONSTRAINT appointments_one_place_at_a_time
    EXCLUDE USING gist (
        pg_catalog.int8range(
            pg_catalog.hashtextextended(device_id, 0::bigint) OPERATOR(pg_catalog./) 2::bigint,
            pg_catalog.hashtextextended(device_id, 0::bigint) OPERATOR(pg_catalog./) 2::bigint, '[]'
        ) WITH OPERATOR(pg_catalog.&&),
        during WITH OPERATOR(pg_catalog.&&))
    WHERE (status = 'booked');

ALTER TABLE @schema.appointment_hours
    DROP CONSTRAINT appointment_hours_check,
    ADD CONSTRAINT appointment_hours_check CHECK (opens <> closes);

-- A device that was erased, imported and talked again can be erased again.

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
    UPDATE @schema.appointments a SET device_id = '', status = 'cancelled' WHERE a.device_id = device;
END
$$;

-- The practice's invoices, which its own software writes, and who has paid them here.
-- erase: invoices_erase
-- export: invoices_export

CREATE TABLE @schema.invoices (
    number integer PRIMARY KEY,
    cents  integer NOT NULL CHECK (cents > 0)
);

INSERT INTO @schema.invoices (number, cents) VALUES (4711, 4200), (4712, 9900);  -- to try it

CREATE TABLE @schema.payments (
    number     integer PRIMARY KEY REFERENCES @schema.invoices (number),
    device_id  text NOT NULL,
    key        text NOT NULL,     -- under which the payment service knows it; the same for every attempt
    payment_id text               -- null until it is paid
);

CREATE FUNCTION @schema.invoices_erase(device text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE @schema.payments p SET device_id = '' WHERE p.device_id = device;
END
$$;

CREATE FUNCTION @schema.invoices_export(device text) RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN (SELECT pg_catalog.jsonb_agg(p.number ORDER BY p.number) FROM @schema.payments p WHERE p.device_id = device);
END
$$;

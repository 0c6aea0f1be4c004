-- Device tokens. The head of schema.sql explains the table.

CREATE TABLE @schema.moorline_revocations (
    device     bytea PRIMARY KEY,
    generation bigint NOT NULL,
    revoked_at timestamptz NOT NULL
);

INSERT INTO @schema.moorline_keys (name, key) VALUES (
    'token',
    pg_catalog.decode(pg_catalog.replace(
        pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex'));

-- Revoke: refuses all tokens of the device that were issued until now.
CREATE FUNCTION @schema.moorline_revoke(hashed bytea) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
    raised bigint := (pg_catalog.date_part('epoch', moment) * 1000000::double precision)::bigint;
BEGIN
    INSERT INTO @schema.moorline_revocations AS r (device, generation, revoked_at)
        VALUES (hashed, raised, moment)
        ON CONFLICT (device) DO UPDATE
        SET generation = greatest(r.generation + 1::bigint, raised), revoked_at = moment;
END
$$;

-- Forget revocations: removes those of so many days ago. Returns how many.
CREATE FUNCTION @schema.moorline_forget_revocations(days double precision) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    oldest timestamptz := pg_catalog.clock_timestamp() - days * interval '1 day';
    gone bigint;
BEGIN
    DELETE FROM @schema.moorline_revocations r WHERE r.revoked_at < oldest;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;

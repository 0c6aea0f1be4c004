-- Facts. The functions are documented where they are created, in the migrations. `pending` are facts that the caller has
-- written and not stored yet: they count as stored, and one without a value as deleted. A range of namespaces without an
-- upper end has an empty one. If only live facts are wanted, those that have expired are left out.

-- name: get_facts repeatable
SELECT k.place, f.value, f.created_at, f.updated_at, f.ttl
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS k (namespace, key, place)
JOIN @schema.conversation_facts f ON f.device_id = $1::text AND f.namespace = k.namespace AND f.key = k.key
WHERE NOT $4::boolean OR f.expires_at IS NULL OR f.expires_at > pg_catalog.statement_timestamp();

-- name: search_facts repeatable
-- Facts of the namespaces between $2 and $3 whose values fit all conditions, those that were written last first. Only
-- numbers and only texts are greater or less than another; a field that is missing is null.
WITH pending AS (
    SELECT p.namespace, p.key, p.value
    FROM pg_catalog.jsonb_to_recordset($6::jsonb) AS p (namespace text COLLATE "C", key text, value jsonb)
), found AS (
    SELECT f.namespace, f.key, f.value, f.created_at, f.updated_at, f.ttl
    FROM unnest($2::text[], $3::text[]) AS r (low, high)
    JOIN @schema.conversation_facts f
        ON f.device_id = $1::text AND f.namespace >= r.low AND (f.namespace < r.high OR r.high = ''::text)
    WHERE (NOT $5::boolean OR f.expires_at IS NULL OR f.expires_at > pg_catalog.statement_timestamp())
        AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.namespace = f.namespace AND p.key = f.key)
    UNION ALL
    SELECT p.namespace, p.key, p.value, $7::timestamptz, $7::timestamptz, NULL::double precision
    FROM unnest($2::text[], $3::text[]) AS r (low, high)
    JOIN pending p ON p.namespace >= r.low AND (p.namespace < r.high OR r.high = ''::text)
    WHERE p.value IS NOT NULL
)
SELECT f.namespace, f.key, f.value, f.created_at, f.updated_at, f.ttl
FROM found f
WHERE NOT EXISTS (
    SELECT 1
    FROM pg_catalog.jsonb_array_elements($4::jsonb) AS c (item)
    CROSS JOIN LATERAL (
        SELECT coalesce(f.value->(c.item->>'field'::text), 'null'::jsonb) AS own, c.item->'value'::text AS other
    ) v
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN pg_catalog.jsonb_typeof(v.own) <> pg_catalog.jsonb_typeof(v.other) THEN NULL
            WHEN pg_catalog.jsonb_typeof(v.own) = 'number'::text THEN
                CASE WHEN v.own < v.other THEN -1 WHEN v.own > v.other THEN 1 ELSE 0 END
            WHEN pg_catalog.jsonb_typeof(v.own) = 'string'::text THEN
                CASE
                    WHEN (v.own #>> '{}'::text[]) COLLATE "C" < (v.other #>> '{}'::text[]) THEN -1
                    WHEN (v.own #>> '{}'::text[]) COLLATE "C" > (v.other #>> '{}'::text[]) THEN 1
                    ELSE 0 END
            END AS sign
    ) n
    WHERE NOT coalesce(
        CASE c.item->>'is'::text
            WHEN '$eq'::text THEN v.own = v.other
            WHEN '$ne'::text THEN v.own <> v.other
            WHEN '$gt'::text THEN n.sign > 0
            WHEN '$gte'::text THEN n.sign >= 0
            WHEN '$lt'::text THEN n.sign < 0
            WHEN '$lte'::text THEN n.sign <= 0 END,
        false))
ORDER BY f.updated_at DESC, f.namespace, f.key
LIMIT $8::bigint OFFSET $9::bigint;

-- name: list_namespaces repeatable
-- The namespaces between $2 and $3 that fit all conditions, without what they begin with, $2, and cut to $6 labels.
WITH pending AS (
    SELECT p.namespace, p.key, p.value
    FROM pg_catalog.jsonb_to_recordset($5::jsonb) AS p (namespace text COLLATE "C", key text, value jsonb)
), found AS (
    SELECT f.namespace, r.low
    FROM unnest($2::text[], $3::text[]) AS r (low, high)
    JOIN @schema.conversation_facts f
        ON f.device_id = $1::text AND f.namespace >= r.low AND (f.namespace < r.high OR r.high = ''::text)
    WHERE (NOT $7::boolean OR f.expires_at IS NULL OR f.expires_at > pg_catalog.statement_timestamp())
        AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.namespace = f.namespace AND p.key = f.key)
    UNION
    SELECT p.namespace, r.low
    FROM unnest($2::text[], $3::text[]) AS r (low, high)
    JOIN pending p ON p.namespace >= r.low AND (p.namespace < r.high OR r.high = ''::text)
    WHERE p.value IS NOT NULL
), paths AS (
    SELECT pg_catalog.string_to_array(
        pg_catalog.rtrim(pg_catalog.substr(f.namespace, pg_catalog.length(f.low) + 1), '.'), '.') AS path
    FROM found f
)
SELECT DISTINCT pg_catalog.array_to_string(
    n.path[1:coalesce($6::integer, pg_catalog.cardinality(n.path))], '.') COLLATE "C" AS namespace
FROM paths n
WHERE NOT EXISTS (
    SELECT 1
    FROM pg_catalog.jsonb_array_elements($4::jsonb) AS c (item)
    CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(c.item->'path'::text) WITH ORDINALITY AS l (label, place)
    CROSS JOIN LATERAL (
        SELECT n.path[l.place::integer + CASE c.item->>'at'::text
            WHEN 'suffix'::text
            THEN pg_catalog.cardinality(n.path) - pg_catalog.jsonb_array_length(c.item->'path'::text)
            ELSE 0 END] AS label
    ) own
    WHERE own.label IS NULL OR (l.label <> '*'::text AND l.label <> own.label))
ORDER BY 1
LIMIT $8::bigint OFFSET $9::bigint;

-- name: keep_facts repeatable
SELECT @schema.moorline_keep_facts($1::text, $2::jsonb, pg_catalog.statement_timestamp(), $3::boolean);

-- name: expire_facts
SELECT @schema.moorline_expire_facts($1::integer);

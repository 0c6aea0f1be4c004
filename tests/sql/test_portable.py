"""All of our SQL runs on a cluster of servers as it does on one; each rule is shown an example that breaks it."""

from collections.abc import Iterator

import pytest

from tests.sql import portable
from tests.sql.portable import DEFINITIONS, FUNCTIONS, SENT, STATEMENTS, Finding
from tests.sql.reading import definitions, functions, sent

EXCEPTIONS = {
    # The catalogue is in one place, on one server, and no turn waits for its numbers.
    "no sequences": "moorline_migrations/sql/scheduling/",
    # A DO block runs where it is sent, and its settings are for its own changes of the schema there.
    "set_config in a statement of its own": " DO in line ",
}
"""Places where a rule may be broken."""

BODY = "CREATE FUNCTION f(device text, list text[]) RETURNS void LANGUAGE plpgsql AS $$ {} $$"


def body(text: str) -> str:
    """SQL of a function with this body."""
    return BODY.format(f"DECLARE moment timestamptz; one text; BEGIN {text} END")


EXAMPLES = [
    (
        "functions with parameters in PL/pgSQL",
        "CREATE FUNCTION f(a integer) RETURNS integer LANGUAGE sql AS 'SELECT a'",
        "CREATE FUNCTION f() RETURNS TABLE (a integer) LANGUAGE sql AS 'SELECT 1'",
    ),
    (
        "functions with parameters in PL/pgSQL",
        "CREATE FUNCTION f(a integer) RETURNS integer LANGUAGE sql RETURN a",
        "CREATE FUNCTION f(a integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN a; END'",
    ),
    (
        "no search_path on a function",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN END'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET plan_cache_mode = auto AS 'BEGIN END'",
    ),
    (
        "no search_path on a function",
        "ALTER FUNCTION f() SET search_path FROM CURRENT",
        "ALTER FUNCTION f() RESET plan_cache_mode",
    ),
    ("no sequences", "CREATE SEQUENCE s", "CREATE TABLE t (a bigint)"),
    ("no sequences", "CREATE TABLE t (a bigserial)", "CREATE TABLE t (a uuid)"),
    ("no sequences", "CREATE TABLE t (a bigint GENERATED ALWAYS AS IDENTITY)", "CREATE TABLE t (a bigint DEFAULT 0)"),
    (
        "no sequences",
        body("PERFORM nextval('s');"),
        body("UPDATE conversation_states s SET fence = s.fence + 1 WHERE s.device_id = device;"),
    ),
    (
        "nothing volatile in an UPDATE: into a variable first",
        body("UPDATE t SET at = clock_timestamp() WHERE t.device_id = device;"),
        body("moment := clock_timestamp(); UPDATE t SET at = moment WHERE t.device_id = device;"),
    ),
    (
        "nothing volatile in an UPDATE: into a variable first",
        "INSERT INTO t (id, at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET at = pg_catalog.clock_timestamp()",
        "INSERT INTO t (id, at) VALUES ($1, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
    ),
    (
        "nothing volatile in an UPDATE: into a variable first",
        "WITH u AS (UPDATE t SET at = $2 WHERE t.id = $1 AND t.at < clock_timestamp() RETURNING 1) SELECT FROM u",
        "UPDATE t SET at = $2 WHERE t.id = $1 AND t.at < $3",
    ),
    (
        "no function in an UPDATE's WHERE: collect IDs first",
        body("UPDATE t SET a = 1 WHERE t.device_id = device AND t.id IN (SELECT r.id FROM running(device) r);"),
        body("UPDATE t SET a = 1 WHERE t.device_id = device AND t.id = ANY (list);"),
    ),
    (
        "no function in an UPDATE's WHERE: collect IDs first",
        "UPDATE t SET a = 1 WHERE t.device_id = $1 AND lower(t.name) = $2",
        "UPDATE t SET a = 1 WHERE t.device_id = $1 AND coalesce(t.name, '') = $2",
    ),
    (
        "no moment plus interval in ON CONFLICT",
        "INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = t.at + t.ttl * interval '1 second' > $2",
        "INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET a = $2 - t.at < t.ttl * interval '1 second'",
    ),
    (
        "no element of an array in SET: a scalar variable",
        body("UPDATE t SET a = list[1] WHERE t.device_id = device;"),
        body("one := list[1]; UPDATE t SET a = one WHERE t.device_id = device;"),
    ),
    (
        "no ARRAY(SELECT …) in VALUES: a variable",
        body("INSERT INTO t (id, names) VALUES (device, ARRAY(SELECT n.name FROM n));"),
        body("INSERT INTO t (id, names) VALUES (device, list);"),
    ),
    (
        "devices locked one by one",
        "SELECT s.a FROM conversation_states s WHERE s.device_id = ANY ($1) FOR UPDATE",
        "SELECT s.a FROM conversation_states s WHERE s.device_id = $1 FOR UPDATE",
    ),
    (
        "devices locked one by one",
        "WITH h AS (SELECT s.a FROM s WHERE s.device_id IN ($1, $2) FOR NO KEY UPDATE SKIP LOCKED) SELECT h.a FROM h",
        "SELECT s.a FROM conversation_states s WHERE s.device_id = ANY ($1)",
    ),
    (
        "LATERAL … LIMIT only with a given device_id on every table",
        "SELECT v.a FROM c CROSS JOIN LATERAL (SELECT v.a FROM v WHERE v.device_id = c.device_id LIMIT 1) v",
        "SELECT v.a FROM c CROSS JOIN LATERAL (SELECT v.a FROM v WHERE v.device_id = $1::text LIMIT 1) v",
    ),
    (
        "LATERAL … LIMIT only with a given device_id on every table",
        body("PERFORM FROM c, LATERAL (SELECT FROM v, w WHERE v.device_id = device AND w.id = v.id LIMIT 1) v;"),
        body("PERFORM FROM c, LATERAL (SELECT FROM v WHERE v.device_id = device AND v.id = c.id LIMIT 1) v;"),
    ),
    (
        "no INSERT … SELECT into conversation_states",
        "INSERT INTO conversation_states (device_id) SELECT k.id FROM k ON CONFLICT (device_id) DO NOTHING",
        "INSERT INTO conversation_states (device_id) VALUES ($1) ON CONFLICT (device_id) DO NOTHING",
    ),
    (
        "set_config in a statement of its own",
        body("PERFORM set_config('lock_timeout', '1s', true);"),
        body("PERFORM 1;"),
    ),
    (
        "set_config in a statement of its own",
        "SELECT set_config('lock_timeout', '1s', true) FROM t WHERE t.device_id = $1 FOR UPDATE",
        "SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '1s', true)",
    ),
    (
        "no advisory lock: lock the row",
        body("PERFORM pg_advisory_xact_lock(1);"),
        body("PERFORM FROM t WHERE t.device_id = device FOR UPDATE;"),
    ),
    (
        "no advisory lock: lock the row",
        "SELECT pg_catalog.pg_try_advisory_lock($1)",
        "SELECT pg_catalog.pg_backend_pid()",
    ),
    ("columns by name", "SELECT * FROM t", "SELECT t.a, count(*) FROM t GROUP BY t.a"),
    ("columns by name", "UPDATE t SET a = 1 RETURNING t.*", "UPDATE t SET a = 1 RETURNING t.a"),
    # A whole row is selected into a variable of the table's row type.
    (
        "columns by name",
        body("PERFORM * FROM t;"),
        body("SELECT t.* INTO one FROM t WHERE t.device_id = device;"),
    ),
    ("one command at a time", "SELECT 1; SELECT 2", "SELECT 1;"),
]


def judged(sql: str) -> list[Finding]:
    """What is found in a definition or a statement."""
    found = list(portable.of_file("", sql))
    made = list(functions(sql))
    for function in made:
        found += portable.of_function("", function)
    if not made and not sql.startswith(("CREATE", "ALTER")):
        found += portable.of_statement("", sql)
    return found


def findings() -> Iterator[Finding]:
    for path, text in definitions():
        yield from portable.of_file(path, text)
        for function in functions(text):
            yield from portable.of_function(f"{path} {function.name}", function)
    for place, sql in sent():
        yield from portable.of_statement(place, sql)


def test_all_of_our_sql_is_portable() -> None:
    found = list(findings())
    for rule, place in EXCEPTIONS.items():
        excepted = [finding for finding in found if finding.rule == rule and place in finding.place]
        assert excepted, f"nothing breaks the rule {rule!r} in {place!r} any more"
        found = [finding for finding in found if finding not in excepted]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize(("rule", "bad", "good"), EXAMPLES)
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule: str, bad: str, good: str) -> None:
    assert rule in {finding.rule for finding in judged(bad)}
    assert judged(good) == []


def test_every_rule_has_an_example() -> None:
    rules = {"one command at a time", *DEFINITIONS, *STATEMENTS, *FUNCTIONS, *SENT}
    assert {rule for rule, _, _ in EXAMPLES} == rules


def test_our_sql_is_read_whole() -> None:
    read = [function for _, text in definitions() for function in functions(text)]
    assert {"moorline_begin", "moorline_claim", "moorline_commit"} <= {function.name for function in read}
    assert sum(len(list(function.parts())) for function in read) > 200
    assert len(list(sent())) > 40

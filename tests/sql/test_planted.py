"""Nothing that a stranger plants in `public` runs with our rights.

A role that may create in a schema of the search_path can make an operator or function that fits better than
pg_catalog's, and so run its code with the rights of every user of it. Our operators and functions fit exactly or are
written with their schema.
"""

from collections.abc import Callable

import asyncpg
import pytest

from moorline_migrations import SHIPPED, migrate, script
from tests.sql.probe import Connection, Hole, Probe
from tests.sql.reading import definitions, function, functions, sent, statements

# The functions in a database, including those that an adoption built.
OURS = """
    SELECT pg_get_functiondef(p.oid) AS definition
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'stranger'::regrole AND p.prokind = 'f'
        AND p.proname <> 'planted_probe'
    ORDER BY p.proname
"""
SHUT = "pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"
STATES = "public.conversation_states"
SCRIPTS = [f"moorline_migrations/sql/{name}_session_lock_fields.sql" for name in ("add", "remove")] + [
    "moorline_migrations/sql/remove_moorline.sql"
]
# Views, defaults, constraints, indexes, generated columns.
DEPENDENT = """
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS dependent,
        pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) AS planted
    FROM pg_depend d
    LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    LEFT JOIN pg_proc pd ON d.classid = 'pg_proc'::regclass AND pd.oid = d.objid
    LEFT JOIN pg_operator od ON d.classid = 'pg_operator'::regclass AND od.oid = d.objid
    WHERE 'stranger'::regrole IN (p.proowner, o.oprowner)
        AND 'stranger'::regrole IS DISTINCT FROM coalesce(pd.proowner, od.oprowner)
        AND d.classid <> 'pg_cast'::regclass
"""


def told(holes: list[Hole]) -> str:
    return "\n".join(map(str, holes))


async def test_what_is_planted_is_taken(dsn: str, probe: Probe, catalog: Connection) -> None:
    """Otherwise the other tests would prove nothing."""
    assert await catalog.fetchval("SELECT count(*) FROM pg_operator WHERE oprowner = 'stranger'::regrole") > 1500
    assert await catalog.fetchval("SELECT count(*) FROM pg_proc WHERE proowner = 'stranger'::regrole") > 2000
    assert await catalog.fetchval("SELECT count(*) FROM pg_cast WHERE casttarget = 'public.planted'::regtype") > 30
    ours = await asyncpg.connect(dsn)
    try:
        for expression in (
            "1 * interval '1 second'",
            "'{}'::text[] <> '{}'",
            "5::bigint % 2",
            "pg_catalog.jsonb_build_object('a', 1) -> 'a'",
            "unnest('{1}'::text[])",
            "jsonb_build_object('a', 'b')",
            "array_agg('a'::text)",
            "hashtextextended('a', 0)",
            "tstzrange(pg_catalog.now(), pg_catalog.now()) && pg_catalog.tstzrange(NULL, NULL)",
        ):
            with pytest.raises(asyncpg.PostgresError):
                await ours.execute(f"SELECT {expression}")
            assert await probe.statement("", f"SELECT {expression}"), expression
        for expression in (
            "1::double precision * interval '1 second'",
            "'{}'::text[] OPERATOR(pg_catalog.<>) '{}'",
            "'{}'::jsonb -> 'a'::text",
            "pg_catalog.jsonb_build_object('a', 1)",
            "clock_timestamp() - interval '1 day'",
        ):
            await ours.execute(f"SELECT {expression}")
            assert await probe.statement("", f"SELECT {expression}") == []
    finally:
        await ours.close()


async def test_no_statement_runs_what_is_planted(probe: Probe) -> None:
    holes = [hole for place, sql in sent() for hole in await probe.statement(place, sql.rstrip(";"))]
    assert not holes, told(holes)


async def test_no_function_runs_what_is_planted(probe: Probe, catalog: Connection) -> None:
    made = [function(row["definition"]) for row in await catalog.fetch(OURS)]
    assert {"moorline_begin", "moorline_commit", "moorline_erase", "scheduling_erase"} <= {each.name for each in made}
    holes = [hole for each in made for hole in await probe.function(each.name, each)]
    assert not holes, told(holes)


@pytest.mark.parametrize("path", SCRIPTS)
async def test_no_block_of_a_script_runs_what_is_planted(probe: Probe, path: str) -> None:
    """Up to the point where it sets the search_path to pg_catalog until its transaction ends."""
    blocks = [each for each in functions(dict(definitions())[path]) if each.name.startswith("DO")]
    assert blocks
    holes = [hole for each in blocks for hole in await probe.function(path, each, until=SHUT)]
    assert not holes, told(holes)


async def test_a_migration_shuts_out_what_is_planted_before_anything_else(probe: Probe) -> None:
    """Numbered files, and what runs before and after each, run in the transaction of the first."""
    run = [sql for _, sql in statements(script(components=SHIPPED))]
    [shut, *_] = [place for place, sql in enumerate(run) if SHUT in sql]
    assert run[0].startswith("BEGIN")
    before = [each for sql in run[1:shut] for each in functions(sql)]
    assert len(before) == shut - 1  # a block that refuses a database it cannot carry over
    holes = [hole for each in before for hole in await probe.function("before", each)]
    assert not holes, told(holes)


@pytest.mark.parametrize("name", [None, "uuid_key", "uuid_device", "repeated_key"])
async def test_a_schema_made_where_things_are_planted_depends_on_none(
    planted_dsn: str, backend: Callable[[str], str], name: str | None
) -> None:
    """Neither does what an adoption adds to a backend's table, including its triggers."""
    if name:
        own = await asyncpg.connect(planted_dsn)
        await own.execute(backend(name))
        await own.close()
    await migrate(planted_dsn, components=SHIPPED)
    ours = await asyncpg.connect(planted_dsn)
    catalog = await asyncpg.connect(planted_dsn, server_settings={"search_path": "pg_catalog"})
    try:
        assert [tuple(row) for row in await catalog.fetch(DEPENDENT)] == []
        probe = Probe(ours, catalog)
        made = [function(row["definition"]) for row in await catalog.fetch(OURS)]
        triggers = [each for each in made if each.name in ("moorline_follow_key", "moorline_time_lock")]
        assert len(triggers) == {None: 0, "uuid_key": 2, "uuid_device": 1, "repeated_key": 2}[name]
        holes = [hole for each in triggers for hole in await probe.function(each.name, each, table=STATES)]
        assert not holes, told(holes)
    finally:
        await ours.close()
        await catalog.close()

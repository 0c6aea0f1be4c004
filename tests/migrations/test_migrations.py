"""`migrate` brings a schema to the newest version, once and completely, even if others run it at the same time."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from moorline_migrations import CORE, SCHEDULING, SHIPPED, Version, apply, check, migrate, script, status
from moorline_migrations.errors import SchemaMismatch, StoreUnavailable
from moorline_migrations.runner import apply_versions

if TYPE_CHECKING:
    from asyncpg import Connection, Record

Catalog = Callable[..., Awaitable[list[str]]]
Waiters = Callable[[int], Awaitable[None]]
Psql = Callable[..., "subprocess.CompletedProcess[str]"]

KNOWN = [*CORE.versions, *SCHEDULING.versions]
RUNNER = """
import asyncio, sys, moorline_migrations as m
print(len(asyncio.run(m.migrate(sys.argv[1], components=m.SHIPPED))))
"""
ROWS = """
    SELECT component, version, name, oldest_code, erase_function, export_function
    FROM moorline_schema ORDER BY component, version
"""


def next_version(sql: str, *, oldest_code: int = 0) -> Version:
    return Version(component="moorline", number=CORE.newest + 1, name="next", oldest_code=oldest_code, sql=sql)


OVERLAPPING = """
    WITH service AS (
        INSERT INTO appointment_services (name, minutes) VALUES ('Haircut', 30) RETURNING service_id
    ), provider AS (
        INSERT INTO appointment_providers (name, time_zone) VALUES ('Ana', 'UTC'), ('Marc', 'UTC') RETURNING provider_id
    )
    INSERT INTO appointments (device_id, provider_id, service_id, during)
    SELECT 'secret', provider_id, service_id, tstzrange('2030-06-03 10:00+00', '2030-06-03 10:30+00')
    FROM service, provider
"""


async def test_rows_that_a_new_constraint_forbids_are_told_and_stay(
    connection: "Connection[Record]", empty_dsn: str
) -> None:
    first, second, *_ = SCHEDULING.versions
    await apply_versions(connection, [*CORE.versions, first])
    await connection.execute(OVERLAPPING)
    said = "appointments break appointments_one_place_at_a_time.*scheduling 0002.*0002_places_and_nights.sql"
    with pytest.raises(SchemaMismatch, match=said) as refused:
        await migrate(empty_dsn, components=SHIPPED)
    assert "secret" not in str(refused.value)
    assert await connection.fetchval("SELECT count(*) FROM appointments") == 2
    await connection.execute(
        "UPDATE appointments SET status = 'cancelled'"
        " WHERE appointment_id = (SELECT appointment_id FROM appointments LIMIT 1)"
    )
    assert second in await migrate(empty_dsn, components=SHIPPED)


async def test_everything_is_applied_once(empty_dsn: str) -> None:
    before = await status(empty_dsn, components=SHIPPED)
    assert [(each.component, each.current, each.newest, each.pending) for each in before] == [
        ("moorline", 0, CORE.newest, CORE.versions),
        ("scheduling", 0, SCHEDULING.newest, SCHEDULING.versions),
    ]
    assert await migrate(empty_dsn, components=SHIPPED) == KNOWN
    assert await migrate(empty_dsn, components=SHIPPED) == []
    after = await status(empty_dsn, components=SHIPPED)
    assert [(each.current, each.pending) for each in after] == [(CORE.newest, ()), (SCHEDULING.newest, ())]


async def test_each_component_has_a_history_of_its_own(connection: "Connection[Record]", empty_dsn: str) -> None:
    assert await migrate(empty_dsn) == list(CORE.versions)
    assert await connection.fetchval("SELECT to_regclass('appointments')") is None
    assert [each.current for each in await status(empty_dsn, components=SHIPPED)] == [CORE.newest, 0]

    assert await migrate(empty_dsn, components=SHIPPED) == list(SCHEDULING.versions)
    rows = await connection.fetch(ROWS)
    assert [(row["component"], row["version"]) for row in rows] == [(v.component, v.number) for v in KNOWN]


async def test_the_schema_has_the_name_it_is_given(connection: "Connection[Record]", empty_dsn: str) -> None:
    await migrate(empty_dsn, schema="chat")
    [chat], [public] = await status(empty_dsn, schema="chat"), await status(empty_dsn)
    assert (chat.current, public.current) == (CORE.newest, 0)
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    await connection.execute("INSERT INTO chat.conversation_states (device_id) VALUES ('device')")


async def test_ten_runners_at_once_apply_it_once(
    connection: "Connection[Record]", empty_dsn: str, waiters: Waiters
) -> None:
    command = [sys.executable, "-c", RUNNER, empty_dsn]
    runners: list[asyncio.subprocess.Process] = []
    try:
        async with connection.transaction():
            # None gets through before all ten wait.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('moorline migrations of \"public\"', 0))"
            )
            for _ in range(10):
                runners.append(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE))
            await waiters(10)
        answers = await asyncio.gather(*(runner.communicate() for runner in runners))
    finally:
        for runner in runners:
            if runner.returncode is None:
                runner.kill()
                await runner.communicate()
    assert [runner.returncode for runner in runners] == [0] * 10
    assert sorted(int(out) for out, _ in answers) == [0] * 9 + [len(KNOWN)]
    assert await connection.fetchval("SELECT count(*) FROM moorline_schema") == len(KNOWN)


async def test_a_failing_version_leaves_nothing_behind_and_can_be_run_again(
    connection: "Connection[Record]", empty_dsn: str, catalog: Catalog
) -> None:
    await migrate(empty_dsn)
    before = await catalog(connection)
    broken = next_version("CREATE TABLE @schema.half (x integer); SELECT 1 / 0;")
    with pytest.raises(SchemaMismatch, match="division by zero"):
        await apply_versions(connection, [*CORE.versions, broken])
    assert await catalog(connection) == before
    assert (await status(empty_dsn))[0].current == CORE.newest

    mended = replace(broken, sql="CREATE TABLE @schema.half (x integer);")
    assert await apply_versions(connection, [*CORE.versions, mended]) == [mended]
    assert await connection.fetchval("SELECT max(version) FROM moorline_schema") == mended.number


async def test_versions_before_a_failing_one_stay(connection: "Connection[Record]", empty_dsn: str) -> None:
    broken = next_version("SELECT 1 / 0;")
    with pytest.raises(SchemaMismatch, match="division by zero"):
        await apply_versions(connection, [*KNOWN, broken])
    assert [each.pending for each in await status(empty_dsn, components=SHIPPED)] == [(), ()]


async def test_a_first_version_that_fails_leaves_an_empty_database(
    connection: "Connection[Record]", catalog: Catalog
) -> None:
    with pytest.raises(SchemaMismatch, match="division by zero"):
        await apply_versions(connection, [replace(CORE.versions[0], sql="SELECT 1 / 0;")], schema="chat")
    assert await connection.fetchval("SELECT to_regnamespace('chat')") is None


async def test_a_table_in_use_is_not_waited_for_long(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute("CREATE TABLE conversation_states (device_id text PRIMARY KEY)")
    async with connection.transaction():
        await connection.execute("LOCK TABLE conversation_states IN ACCESS SHARE MODE")
        with pytest.raises(StoreUnavailable, match=r"holds the table; try again"):
            async with asyncio.timeout(20):
                await migrate(empty_dsn)
    assert await migrate(empty_dsn) == list(CORE.versions)


async def test_the_connection_keeps_its_settings(connection: "Connection[Record]") -> None:
    asked = "SELECT current_setting('search_path'), current_setting('lock_timeout')"
    before = await connection.fetchrow(asked)
    await apply(connection, schema="chat")
    assert await connection.fetchrow(asked) == before


async def test_the_script_does_in_psql_what_migrate_does(
    connection: "Connection[Record]", dsn: str, psql: Psql, catalog: Catalog
) -> None:
    done = psql(stdin=script(components=SHIPPED))
    assert (done.returncode, done.stderr) == (0, "")
    migrated = await asyncpg.connect(dsn)
    try:
        assert await catalog(connection) == await catalog(migrated)
        assert await connection.fetch(ROWS) == await migrated.fetch(ROWS)
    finally:
        await migrated.close()
    newest = {each.component: each.newest for each in SHIPPED}
    assert script(current=newest, components=SHIPPED) == ""

    before = await catalog(connection)
    assert "already exists" in psql(stdin=script()).stderr
    assert await catalog(connection) == before


async def test_the_script_begins_where_each_component_stands(empty_dsn: str, psql: Psql) -> None:
    await migrate(empty_dsn)
    done = psql(stdin=script(current={"moorline": CORE.newest}, components=SHIPPED))
    assert (done.returncode, done.stderr) == (0, "")
    assert await migrate(empty_dsn, components=SHIPPED) == []


async def test_code_runs_on_its_own_and_on_newer_versions(connection: "Connection[Record]") -> None:
    await apply(connection)
    await check(connection)
    await apply_versions(connection, [next_version("SELECT 1;", oldest_code=CORE.newest)])
    await check(connection)


async def test_a_newer_version_may_refuse_older_code(connection: "Connection[Record]") -> None:
    newest = CORE.newest
    await apply_versions(connection, [*KNOWN, next_version("SELECT 1;", oldest_code=newest + 1)])
    with pytest.raises(SchemaMismatch, match=rf"'moorline' .*too new.*version {newest + 1}.*Upgrade"):
        await check(connection)
    # Another component is not affected.
    await check(connection, components=[SCHEDULING])


async def test_an_older_schema_is_refused_with_the_command_to_run(connection: "Connection[Record]") -> None:
    with pytest.raises(SchemaMismatch, match=r"'moorline' has no tables .*`moorline migrate`"):
        await check(connection)
    await apply(connection)
    needs = rf"'scheduling' has no tables .*needs version {SCHEDULING.newest}.*`moorline migrate`"
    with pytest.raises(SchemaMismatch, match=needs):
        await check(connection, components=SHIPPED)


async def test_a_table_name_taken_by_others_is_refused(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute("CREATE TABLE appointments (theirs text)")
    with pytest.raises(SchemaMismatch, match=r"set MOORLINE_SCHEMA.*appointments"):
        await migrate(empty_dsn, components=SHIPPED)
    assert await migrate(empty_dsn, schema="moorline", components=SHIPPED) == KNOWN

"""Two roles are enough, neither of them a superuser: one owns the schema and migrates, the other runs the
application."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import pytest

from moorline import Moorline, Settings
from moorline_agents.rehearsal import rehearsal_client
from moorline_agents.scheduling.demo import seed_demo
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import CORE, SCHEDULING, SHIPPED, check, migrate
from moorline_migrations.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncpg import Connection, Record

BACKENDS = Path(__file__).parent / "backends"
GRANTS = (files("moorline_migrations") / "sql" / "grants.sql").read_text(encoding="utf-8")

# Roles belong to the server, which all tests of a run share.
ROLES = """
DO $$
BEGIN
    CREATE ROLE moorline_owner LOGIN;
    CREATE ROLE moorline_app LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
"""
CATALOGUE = (
    "appointment_services",
    "appointment_providers",
    "appointment_offers",
    "appointment_hours",
    "appointment_closures",
)
UNREACHED = """
    SELECT c.oid::regclass::text AS name FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND (
        c.relkind = 'r' AND NOT (
            has_table_privilege('moorline_app', c.oid, 'SELECT') AND (
                c.relname IN ('moorline_schema', 'moorline_keys', 'moorline_cleanups')
                OR c.relname LIKE 'appointment\\_%' OR
                has_table_privilege('moorline_app', c.oid, 'INSERT')
                AND has_table_privilege('moorline_app', c.oid, 'UPDATE')
                AND has_table_privilege('moorline_app', c.oid, 'DELETE')))
        OR c.relkind = 'v' AND NOT has_table_privilege('moorline_app', c.oid, 'SELECT')
        OR c.relkind = 'S' AND c.relname NOT LIKE 'appointment\\_%'
            AND NOT has_sequence_privilege('moorline_app', c.oid, 'USAGE'))
    UNION ALL
    SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.prorettype <> 'trigger'::regtype
        AND NOT has_function_privilege('moorline_app', p.oid, 'EXECUTE')
"""


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{role}@").geturl()


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("backend", [None, "uuid_key", "repeated_key"])
async def test_an_owner_migrates_and_a_lesser_role_runs(
    connection: "Connection[Record]", empty_dsn: str, backend: str | None
) -> None:
    await connection.execute(ROLES)
    await connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner")
    # Nothing depends on what every role may do by default.
    await connection.execute("ALTER DEFAULT PRIVILEGES FOR ROLE moorline_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    owner, app = as_role(empty_dsn, "moorline_owner"), as_role(empty_dsn, "moorline_app")
    if backend:
        await execute(owner, (BACKENDS / f"{backend}.sql").read_text())
    assert await migrate(owner, components=SHIPPED) == [*CORE.versions, *SCHEDULING.versions]
    await execute(owner, "GRANT ALL ON appointment_services TO moorline_app")  # earlier grants gave too much
    await execute(owner, GRANTS)

    theirs = {"conversation_notes", "conversation_notes_note_id_seq", "conversation_states_id_seq"}
    assert {row["name"] for row in await connection.fetch(UNREACHED)} - theirs == set()
    if backend == "repeated_key":
        await execute(owner, "GRANT USAGE ON SEQUENCE conversation_states_id_seq TO moorline_app")
    running = await asyncpg.connect(app)
    try:
        await check(running, components=SHIPPED)
        assert await migrate(app, components=SHIPPED) == []
        insert = "INSERT INTO conversation_states (device_id) VALUES ('device') ON CONFLICT (device_id) DO NOTHING"
        assert await running.execute(insert) == "INSERT 0 1"
        await running.execute("UPDATE conversation_states SET active_agent = 'scheduling', locked_at = now()")
        await running.execute("DELETE FROM conversation_states WHERE device_id = 'device'")
        await running.fetch("SELECT device_id FROM expired_sessions")
        claim = "'device', 'm', gen_random_uuid(), 'w', 'hi', NULL, '{}', 'wait', 60, 15, 15, 3, 200"
        assert '"outcome": "claimed"' in await running.fetchval(f"SELECT moorline_claim({claim})")
        assert await running.fetchval("SELECT moorline_erase_everywhere('device')") is True
        assert await running.fetchval("SELECT octet_length(key) FROM moorline_keys WHERE name = 'log'") == 32
        assert await running.fetchval("SELECT count(*) FROM appointment_hours") == 0
        for catalogue in CATALOGUE:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await running.execute(f"INSERT INTO {catalogue} DEFAULT VALUES")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await running.execute("UPDATE moorline_schema SET version = 9")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await running.execute("DROP TABLE conversation_turns")
    finally:
        await running.close()


@pytest.mark.parametrize("appointments", ["absent", "somebody else's"])
async def test_the_rights_are_given_where_there_are_no_appointments_of_ours(
    connection: "Connection[Record]", empty_dsn: str, appointments: str
) -> None:
    await connection.execute(ROLES)
    await connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner")
    if appointments != "absent":
        await connection.execute("CREATE TABLE appointments (id integer)")
    owner = as_role(empty_dsn, "moorline_owner")
    await migrate(owner)
    await execute(owner, GRANTS)
    assert await connection.fetchval("SELECT has_table_privilege('moorline_app', 'conversation_turns', 'INSERT')")
    if appointments != "absent":
        assert not await connection.fetchval("SELECT has_table_privilege('moorline_app', 'appointments', 'SELECT')")


async def test_the_lesser_role_runs_turns_books_cleans_up_and_erases(
    connection: "Connection[Record]", empty_dsn: str
) -> None:
    await connection.execute(ROLES)
    await connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner")
    await connection.execute("ALTER DEFAULT PRIVILEGES FOR ROLE moorline_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    owner, app = as_role(empty_dsn, "moorline_owner"), as_role(empty_dsn, "moorline_app")
    await migrate(owner, components=SHIPPED)
    await execute(owner, GRANTS)
    await seed_demo(connection)

    async with Moorline(Settings(database_url=app), client=rehearsal_client) as moorline:
        await moorline.run("When can I get a haircut?", {"device_id": "d1"})
        assert (await moorline.run("The first one, please", {"device_id": "d1"})).startswith("Shall I book ")
        assert "booked" in (await moorline.run("yes", {"device_id": "d1"})).lower()
        assert await moorline.session("d1") is not None
        assert len(await moorline.transcript("d1")) == 3
        assert await moorline.recover() == 0
        assert await moorline.dead_letters() == []
        assert await moorline.erase("d1")
    assert await connection.fetchval("SELECT count(*) FROM conversation_turns") == 0
    assert [tuple(row) for row in await connection.fetch("SELECT device_id, status FROM appointments")] == [
        ("", "cancelled")
    ]
    async with DeviceCheckpointer.from_conn_string(app) as saver:
        assert await saver.cleanup_expired_sessions() == 0
        assert await remove_older(saver.database, days=1) == 0


async def test_other_functions_in_the_schema_are_left_as_they_are(
    connection: "Connection[Record]", empty_dsn: str
) -> None:
    await connection.execute(ROLES)
    await connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner")
    owner = as_role(empty_dsn, "moorline_owner")
    await migrate(owner, components=SHIPPED)
    await execute(
        owner,
        "CREATE FUNCTION payroll() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "REVOKE EXECUTE ON FUNCTION payroll FROM PUBLIC",
        GRANTS,
    )
    assert not await connection.fetchval("SELECT has_function_privilege('moorline_app', 'payroll()', 'EXECUTE')")


async def test_an_owner_of_one_schema_needs_no_other(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute(ROLES)
    await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    await connection.execute("CREATE SCHEMA moorline AUTHORIZATION moorline_owner")
    assert await migrate(as_role(empty_dsn, "moorline_owner"), schema="moorline") == list(CORE.versions)


async def test_a_role_without_the_right_is_told(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute(ROLES)
    with pytest.raises(ConfigurationError, match=r"lacks a right.*permission denied for schema public"):
        await migrate(as_role(empty_dsn, "moorline_app"))
    await connection.execute("CREATE TABLE conversation_states (device_id text PRIMARY KEY)")
    await connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO moorline_owner")
    with pytest.raises(ConfigurationError, match=r"as the owner of the tables.*conversation_states"):
        await migrate(as_role(empty_dsn, "moorline_owner"))

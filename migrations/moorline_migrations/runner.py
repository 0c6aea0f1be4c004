"""Brings a schema to the newest version, says where it stands, and refuses what this code cannot run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from moorline_migrations.errors import SchemaMismatch, connect_errors, store_errors
from moorline_migrations.identifiers import in_schema
from moorline_migrations.versions import Version, known, sql_text

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

CONNECT_TIMEOUT = 10.0
"""Seconds."""

_STAND = """
    SELECT coalesce(max(version), 0) AS version, coalesce(max(oldest_code), 0) AS oldest_code
    FROM @schema.moorline_schema
"""
_RECORD = "INSERT INTO @schema.moorline_schema (version, name, oldest_code) VALUES"


@dataclass(frozen=True)
class Status:
    """Where a schema stands: its version (0 for none), the newest this code knows, and those it lacks."""

    current: int
    newest: int
    pending: tuple[Version, ...]


async def migrate(dsn: str, *, schema: str = "public") -> list[Version]:
    """Applies what the schema lacks and gives that back, oldest first; an empty list if it lacked nothing.

    Any number may run at once, also behind a pooler in transaction mode: one applies, the others wait and
    find nothing left. A version is there whole or not at all; after an error those before it stay, and the
    call can be made again. SchemaMismatch says what cannot be adopted, StoreUnavailable that a table was held
    by others for too long.
    """
    connection = await _connect(dsn)
    try:
        return await apply(connection, schema=schema)
    finally:
        await connection.close()


async def status(dsn: str, *, schema: str = "public") -> Status:
    """Where the schema stands; changes nothing and needs no right to."""
    connection = await _connect(dsn)
    try:
        with store_errors():
            current, _ = await _stand(connection, schema)
    finally:
        await connection.close()
    return Status(current=current, newest=_newest(known()), pending=_after(current, known()))


def script(*, schema: str = "public", current: int = 0) -> str:
    """The SQL that `migrate` would run on a schema of version `current`, one transaction; empty if none."""
    pending = _after(current, known())
    if not pending:
        return ""
    steps = "".join(f"\n-- {version}\n{_step(version, schema)}" for version in pending)
    return f"BEGIN ISOLATION LEVEL READ COMMITTED;\n\n{_opening(schema)}{steps}\nCOMMIT;\n"


async def apply(
    connection: "Connection[Record]", *, schema: str = "public", versions: Sequence[Version] | None = None
) -> list[Version]:
    """`migrate` on an open connection that is in no transaction; `versions` are by default all known."""
    versions = known() if versions is None else versions
    with store_errors():
        current, _ = await _stand(connection, schema)
        if not _after(current, versions):
            return []
        return await _apply(connection, schema, versions)


async def check(connection: "Connection[Record] | PoolConnectionProxy[Record]", *, schema: str = "public") -> None:
    """SchemaMismatch, with the command to run, unless this code can run on the schema.

    It can if the schema has every version it knows. Newer ones are no obstacle, unless one of them says that
    it needs newer code (see `versions.read`).
    """
    with store_errors():
        current, oldest_code = await _stand(connection, schema)
    newest = _newest(known())
    if current < newest:
        found = f"is at version {current}" if current else "holds no tables of Moorline"
        raise SchemaMismatch(
            f"Schema {schema!r} {found}; this code needs version {newest}. "
            "Run `moorline migrate` with a role that owns the schema."
        )
    if oldest_code > newest:
        raise SchemaMismatch(
            f"Schema {schema!r} is at version {current}, too new: it needs code that knows version "
            f"{oldest_code}, and this code knows up to {newest}. Upgrade Moorline."
        )


async def _connect(dsn: str) -> "Connection[Record]":
    with connect_errors():
        # Without cached statements it works behind any pooler.
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, statement_cache_size=0)


async def _stand(connection: "Connection[Record] | PoolConnectionProxy[Record]", schema: str) -> tuple[int, int]:
    """The schema's version and the newest that its oldest fitting code must know."""
    if await connection.fetchval(in_schema("SELECT to_regclass('@schema.moorline_schema')", schema)) is None:
        return 0, 0
    [row] = await connection.fetch(in_schema(_STAND, schema))
    return row["version"], row["oldest_code"]


async def _apply(connection: "Connection[Record]", schema: str, versions: Sequence[Version]) -> list[Version]:
    applied: list[Version] = []
    failure: asyncpg.PostgresError | None = None
    # Read committed: what is read after waiting for the lock must be what its last holder left.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_opening(schema))
        current, _ = await _stand(connection, schema)
        for version in _after(current, versions):
            try:
                async with connection.transaction():
                    await connection.execute(_step(version, schema))
            except asyncpg.PostgresError as error:
                if not applied:
                    raise
                failure = error
                break
            applied.append(version)
    if failure is not None:
        raise failure
    return applied


def _opening(schema: str) -> str:
    return in_schema(sql_text("begin.sql"), schema)


def _step(version: Version, schema: str) -> str:
    # Literals, because `script` prints it; a version's name and numbers are checked where they are read.
    row = f"({version.number}, '{version.name}', {version.oldest_code})"
    return in_schema(f"{_RECORD} {row};\n\n{version.sql}", schema)


def _after(current: int, versions: Sequence[Version]) -> tuple[Version, ...]:
    return tuple(version for version in versions if version.number > current)


def _newest(versions: Sequence[Version]) -> int:
    return versions[-1].number

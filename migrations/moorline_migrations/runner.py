"""Migrates a schema's components to their newest versions, reports their versions, and refuses a schema that this code
cannot run on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from moorline_migrations.components import CORE, Migrations, distinct
from moorline_migrations.dsn import asyncpg_dsn
from moorline_migrations.errors import SchemaMismatch, connect_errors, store_errors, translate, without_values
from moorline_migrations.identifiers import in_schema
from moorline_migrations.versions import Version

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

CONNECT_TIMEOUT = 10.0
"""Seconds."""

_STAND = """
    SELECT component, max(version) AS version, max(oldest_code) AS oldest_code
    FROM @schema.moorline_schema
    GROUP BY component
"""
_RECORD = """
    INSERT INTO @schema.moorline_schema (component, version, name, oldest_code, erase_function, export_function) VALUES
"""

_MISTAKES = asyncpg.SyntaxOrAccessError
_NO_MISTAKES = (asyncpg.InsufficientPrivilegeError, asyncpg.DuplicateTableError, asyncpg.DuplicateFunctionError)
"""Those that say something about the database into which a version comes."""

_LINE_END = "\n"


@dataclass(frozen=True)
class Status:
    """A component's version in the schema (0 for none), the newest that this code knows, and the missing ones."""

    component: str
    current: int
    newest: int
    pending: tuple[Version, ...]


async def migrate(dsn: str, *, schema: str = "public", components: Sequence[Migrations] = (CORE,)) -> list[Version]:
    """Applies the versions that the components lack, one component after the other, and returns them.

    Any number may run at once, even behind a pooler in transaction mode: one applies, the others wait and find nothing
    left. A version is applied completely or not at all; after an error the ones before it stay, and the call can be
    repeated. SchemaMismatch says what cannot be adopted, or where a file has a mistake; StoreUnavailable says that a
    table was locked for too long.
    """
    connection = await _connect(dsn)
    try:
        return await apply(connection, schema=schema, components=components)
    finally:
        await connection.close()


async def status(dsn: str, *, schema: str = "public", components: Sequence[Migrations] = (CORE,)) -> tuple[Status, ...]:
    """The status of each component. Changes nothing and needs no right to."""
    connection = await _connect(dsn)
    try:
        with store_errors():
            stand = await _stand(connection, schema)
    finally:
        await connection.close()
    return tuple(
        Status(
            component=each.component,
            current=stand.get(each.component, _NOTHING).version,
            newest=each.newest,
            pending=_lacking(stand, each.versions),
        )
        for each in distinct(components)
    )


def script(
    *, schema: str = "public", current: Mapping[str, int] | None = None, components: Sequence[Migrations] = (CORE,)
) -> str:
    """The SQL that `migrate` would run on a schema whose components are at these versions, by default on an empty one:
    one transaction, or an empty text if nothing is missing."""
    stand = {component: _Stand(version=version) for component, version in (current or {}).items()}
    pending = _lacking(stand, _versions(components))
    if not pending:
        return ""
    steps = "".join(f"\n-- {version}\n{_step(version, schema)}" for version in pending)
    return f"BEGIN ISOLATION LEVEL READ COMMITTED;\n\n{_opening(schema)}{steps}\nCOMMIT;\n"


async def apply(
    connection: "Connection[Record]", *, schema: str = "public", components: Sequence[Migrations] = (CORE,)
) -> list[Version]:
    """`migrate` on an open connection that is not in a transaction."""
    return await apply_versions(connection, _versions(components), schema=schema)


async def apply_versions(
    connection: "Connection[Record]", versions: Sequence[Version], *, schema: str = "public"
) -> list[Version]:
    """Applies those of the versions that the schema lacks, in order; otherwise like `apply`."""
    with store_errors():
        if not _lacking(await _stand(connection, schema), versions):
            return []
        return await _apply(connection, schema, versions)


async def check(
    connection: "Connection[Record] | PoolConnectionProxy[Record]",
    *,
    schema: str = "public",
    components: Sequence[Migrations] = (CORE,),
) -> None:
    """SchemaMismatch, with the command to run, unless this code can run on the schema.

    It can if each component has every version that this code knows. Newer versions do no harm, unless one declares that
    it needs newer code (see `versions.read`). Other components in the schema do not matter.
    """
    with store_errors():
        stand = await _stand(connection, schema)
    for each in distinct(components):
        found = stand.get(each.component, _NOTHING)
        if found.version < each.newest:
            stands = f"is at version {found.version}" if found.version else "has no tables"
            raise SchemaMismatch(
                f"Component {each.component!r} {stands} in schema {schema!r}; this code needs version {each.newest}. "
                "Run `moorline migrate` with a role that owns the schema."
            )
        if found.oldest_code > each.newest:
            raise SchemaMismatch(
                f"Component {each.component!r} is at version {found.version} in schema {schema!r}, too new: it needs "
                f"code that knows version {found.oldest_code}, and this code knows up to {each.newest}. Upgrade the "
                "package that brings it."
            )


@dataclass(frozen=True)
class _Stand:
    """A component's version in a schema, and the version that code must know to run on it."""

    version: int
    oldest_code: int = 0


_NOTHING = _Stand(version=0)


async def _connect(dsn: str) -> "Connection[Record]":
    with connect_errors():
        # Without cached statements this works behind any pooler.
        return await asyncpg.connect(asyncpg_dsn(dsn), timeout=CONNECT_TIMEOUT, statement_cache_size=0)


async def _stand(connection: "Connection[Record] | PoolConnectionProxy[Record]", schema: str) -> Mapping[str, _Stand]:
    """The versions of the schema's components, including those that this code does not know."""
    await connection.execute(_script("refuse_unreleased.sql", schema))
    if await connection.fetchval(in_schema("SELECT to_regclass('@schema.moorline_schema')", schema)) is None:
        return {}
    return {
        row["component"]: _Stand(version=row["version"], oldest_code=row["oldest_code"])
        for row in await connection.fetch(in_schema(_STAND, schema))
    }


async def _apply(connection: "Connection[Record]", schema: str, versions: Sequence[Version]) -> list[Version]:
    applied: list[Version] = []
    failure: asyncpg.PostgresError | SchemaMismatch | None = None
    # Read committed: after waiting for the lock we must read what its last holder left.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_opening(schema))
        for version in _lacking(await _stand(connection, schema), versions):
            try:
                async with connection.transaction():
                    step = _step(version, schema)
                    with _mistakes(version, in_schema(version.sql, schema), step), _rows_that_are_there(version):
                        await connection.execute(step)
            except (asyncpg.PostgresError, SchemaMismatch) as error:
                if not applied:
                    raise
                failure = error
                break
            applied.append(version)
    if failure is not None:
        raise failure
    return applied


@contextmanager
def _rows_that_are_there(version: Version) -> Iterator[None]:
    """Raises SchemaMismatch if rows break a constraint of the version. The driver's error would quote them."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise SchemaMismatch(
            f"Rows of the table {error.table_name} break {error.constraint_name}, a constraint of version {version}. "
            f"Its file, {version.number:04}_{version.name}.sql, says what to do; then migrate again. Nothing of this "
            "version was applied."
        ) from None


@contextmanager
def _mistakes(version: Version, sql: str, step: str) -> Iterator[None]:
    """Raises SchemaMismatch, with its place, for a mistake in the version's `sql`, which is a part of the step."""
    try:
        yield
    except asyncpg.PostgresError as error:
        message = without_values(str(error.args[0]))
        if "pg_catalog" in message and isinstance(error, asyncpg.InsufficientPrivilegeError):
            message += "; write @schema. before each of your names"
        elif isinstance(error, _NO_MISTAKES) or not (translate(error) is None or isinstance(error, _MISTAKES)):
            raise
        start, found = step.index(sql), int(getattr(error, "position", None) or 0) - 1
        line = f", line {step.count(_LINE_END, start, found) + 1}" if found >= start else ""
        raise SchemaMismatch(
            f"Version {version} has a mistake in its file, {version.number:04}_{version.name}.sql{line}: {message}. "
            "Nothing of this version was applied."
        ) from error


def _opening(schema: str) -> str:
    return _script("refuse_unreleased.sql", schema) + "\n" + _script("begin.sql", schema)


def _step(version: Version, schema: str) -> str:
    # Literals, because `script` prints it; names and numbers are checked when the files are read.
    functions = ", ".join(f"'{name}'" if name else "NULL" for name in (version.erase_function, version.export_function))
    row = f"('{version.component}', {version.number}, '{version.name}', {version.oldest_code}, {functions})"
    registered = _script("check_registered.sql", schema)
    return f"{in_schema(f'{_RECORD.strip()} {row};', schema)}\n\n{in_schema(version.sql, schema)}\n{registered}"


def _script(name: str, schema: str) -> str:
    text = (files("moorline_migrations") / "sql" / name).read_text(encoding="utf-8")
    return in_schema(text, schema)


def _versions(components: Sequence[Migrations]) -> tuple[Version, ...]:
    return tuple(version for each in distinct(components) for version in each.versions)


def _lacking(stand: Mapping[str, _Stand], versions: Sequence[Version]) -> tuple[Version, ...]:
    return tuple(version for version in versions if version.number > stand.get(version.component, _NOTHING).version)

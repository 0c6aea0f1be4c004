"""Which tables move: those of the schema's components, with their columns as the database's catalogue has them now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from moorline.errors import ConfigurationError
from moorline_migrations.components import CORE, Migrations
from moorline_migrations.errors import store_errors

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

    Raw = Connection[Record] | PoolConnectionProxy[Record]

DEVICE = "device_id"
"""The column that names a row's device."""

LEADS_TO = "leads_to"
"""The column that names the conversation that a device has joined."""

JOINS = "joins"
"""The column that makes a message the wish to join another conversation, as long as somebody waits for that. Such a
message does not move."""

STATES = "conversation_states"
"""The table that may have been a backend's before, with columns of its own."""

LATE = ("conversation_messages", STATES)
"""These come last of all, in this order: what a running backend may wait for is locked as shortly as possible."""

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "moorline_schema": "says what was migrated here; an export has the versions in its first line",
        "moorline_keys": "secrets of a database: moved, they would open tokens and name devices of both",
        "moorline_codes": "link codes, which only a key of this database has hashed and which expire in minutes",
        "moorline_tries": "counts of link codes that were wrong here",
        "moorline_revocations": "refuses tokens that only a key of this database has signed",
        "moorline_cleanups": "says which process cleans up here, and how far",
        "conversation_days": "is counted from turns; an import counts it anew",
        "moorline_days": "is what `conversation_days` adds up to",
    }
)
"""The tables that do not move, and why."""

_CREATED = re.compile(r"^\s*CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?@schema\.(\w+)", re.MULTILINE)

_VERSIONS = "SELECT n.component, max(n.version) AS version FROM @schema.moorline_schema n GROUP BY n.component"

_COLUMNS = """
    SELECT c.relname AS table, a.attname AS column,
        pg_catalog.format('%I.%I', n.nspname, t.typname) AS type,
        pg_catalog.pg_get_serial_sequence(c.oid::pg_catalog.regclass::pg_catalog.text, a.attname) AS sequence
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE c.relnamespace = $1::pg_catalog.text::pg_catalog.regnamespace AND c.relname = ANY ($2::pg_catalog.text[])
        AND a.attgenerated = ''
    ORDER BY c.relname, a.attnum
"""

_KEYS = """
    SELECT c.relname AS table, k.contype = 'f' AS refers, r.relname AS other,
        (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY u.place)
            FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (number, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number) AS columns,
        (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY u.place)
            FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u (number, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number) AS others
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    LEFT JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
    WHERE c.relnamespace = $1::pg_catalog.text::pg_catalog.regnamespace AND c.relname = ANY ($2::pg_catalog.text[])
        AND k.contype IN ('p', 'f')
    ORDER BY k.oid
"""


@dataclass(frozen=True)
class Reference:
    """A foreign key: these columns name a row of the other table by those."""

    columns: tuple[str, ...]
    table: str
    others: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that moves. Columns that the database generates from others are not among its columns."""

    name: str
    types: Mapping[str, str]
    """The type of each column, as SQL."""
    key: tuple[str, ...]
    """The columns of the primary key."""
    references: tuple[Reference, ...]
    sequences: Mapping[str, str]
    """The sequence that numbers a column."""

    @property
    def of_devices(self) -> bool:
        """Whether each row is a device's; if not, the table is shared, like a catalogue."""
        return DEVICE in self.types


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tables that move, each after those that it refers to, and the version of each component."""

    schema: str
    tables: Mapping[str, Table]
    components: Mapping[str, int]

    @property
    def shared(self) -> tuple[Table, ...]:
        """The tables without devices."""
        return tuple(table for table in self.tables.values() if not table.of_devices)

    @property
    def of_devices(self) -> tuple[Table, ...]:
        """The tables with devices."""
        return tuple(table for table in self.tables.values() if table.of_devices)

    def name(self, table: str) -> str:
        """The table's name in SQL."""
        return f"{quoted(self.schema)}.{quoted(table)}"


def quoted(name: str) -> str:
    """A name of the catalogue as SQL."""
    return '"' + name.replace('"', '""') + '"'


async def read_layout(connection: Raw, *, schema: str, components: Sequence[Migrations]) -> Layout:
    """Raises `ConfigurationError` if the schema has a component that is not among these: what it has of a device would
    be left behind."""
    home = quoted(schema)
    with store_errors():
        rows = await connection.fetch(_VERSIONS.replace("@schema", home))
        versions: dict[str, int] = {row["component"]: row["version"] for row in rows}
        known = {each.component: each for each in components}
        if unknown := sorted(versions.keys() - known.keys()):
            raise ConfigurationError(
                f"The schema has tables of {', '.join(map(repr, unknown))}, which this app does not know: name the app "
                "whose agents have them with --app or MOORLINE_APP."
            )
        names = {name: each for each in components for name in created(each)}
        columns = await connection.fetch(_COLUMNS, home, list(names))
        keys = await connection.fetch(_KEYS, home, list(names))
    tables = [_table(name, columns, keys) for name in names if any(row["table"] == name for row in columns)]
    moved = [table for table in tables if table.of_devices or names[table.name] != CORE]
    return Layout(schema=schema, tables={each.name: each for each in _in_order(moved)}, components=versions)


def created(component: Migrations) -> Iterator[str]:
    """The tables that the files of a component make, but for those that are left out."""
    for version in component.versions:
        yield from (name for name in _CREATED.findall(version.sql) if name not in LEFT_OUT)


def _table(name: str, columns: Sequence[Record], keys: Sequence[Record]) -> Table:
    own = [row for row in columns if row["table"] == name]
    its = [row for row in keys if row["table"] == name]
    primary = next((tuple(row["columns"]) for row in its if not row["refers"]), ())
    return Table(
        name=name,
        types={row["column"]: row["type"] for row in own},
        # A table that was a backend's may have a key of the backend's.
        key=(DEVICE,) if name == STATES else primary,
        references=tuple(
            Reference(tuple(row["columns"]), row["other"], tuple(row["others"])) for row in its if row["refers"]
        ),
        sequences={row["column"]: row["sequence"] for row in own if row["sequence"]},
    )


def _in_order(tables: Sequence[Table]) -> list[Table]:
    """Raises `ConfigurationError` if tables refer to each other in a circle."""

    def place(table: Table) -> int:
        return LATE.index(table.name) + 2 if table.name in LATE else int(table.of_devices)

    left, placed = sorted(tables, key=place), list[Table]()
    while left:
        names = {table.name for table in left}
        free = next((each for each in left if not _refers(each, names - {each.name})), None)
        if free is None:
            raise ConfigurationError(f"Tables refer to each other in a circle: {', '.join(sorted(names))}.")
        left.remove(free)
        placed.append(free)
    return placed


def _refers(table: Table, names: set[str]) -> bool:
    return any(reference.table in names for reference in table.references)

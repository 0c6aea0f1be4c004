"""Writing rows of an export into the tables, and comparing them with those that are there."""

# ruff: noqa: S608 - the names that are put into statements are the catalogue's, and quoted.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from moorline.moving.tables import DEVICE, STATES, Layout, Table, quoted
from moorline_migrations.errors import translate, without_values

if TYPE_CHECKING:
    from moorline_checkpoint.database import Connection

ROWS = 500
"""The most rows of a batch."""

BATCH = 4 * 2**20
"""Characters of a batch, unless a single row is longer."""

BEFORE = ("active_agent", "locked_at", "session_ttl", "last_active_at")
"""Columns of Moorline's that a backend's table may have had before; the others say that Moorline added them."""

_OURS = """
    SELECT a.attname::pg_catalog.text
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1::pg_catalog.text::pg_catalog.regclass AND NOT a.attisdropped AND a.attname <> 'device_id'
        AND (pg_catalog.col_description(a.attrelid, a.attnum) LIKE 'Added by Moorline: %'
            OR a.attname = ANY ($2::pg_catalog.text[]))
"""

_BLANK = (
    "s.active_agent IS NULL AND s.last_turn_no = 0 AND s.claim_id IS NULL AND s.arrivals = 0"
    " AND s.leads_to IS NULL AND s.heads OPERATOR(pg_catalog.=) '{}'::pg_catalog.jsonb"
)
"""Whether nothing has happened on a device. A backend may have rows for its devices before their first message, and an
erasure leaves the row of a device that a table of the backend refers to."""


class Refused(Exception):
    """Why a row cannot be imported."""


@dataclass
class Batch:
    """Rows of one table with the same columns, as texts."""

    table: Table
    columns: tuple[str, ...]
    rows: list[Mapping[str, str | None]]
    size: int = 0

    @property
    def full(self) -> bool:
        """Whether it should be written."""
        return len(self.rows) >= ROWS or self.size >= BATCH

    def add(self, row: Mapping[str, str | None]) -> None:
        """One row more."""
        self.rows.append(row)
        self.size += sum(len(value) for value in row.values() if value is not None)

    @property
    def arguments(self) -> list[list[str | None]]:
        """An array for each column."""
        return [[row[name] for row in self.rows] for name in self.columns]


class Tables:
    """The tables of a database, for one import."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._ours: tuple[str, ...] | None = None

    async def known(self, connection: Connection, device: str) -> bool:
        """Whether anything is stored of the device, or another device leads to it."""
        found = " UNION ALL ".join(
            f"SELECT 1 FROM {self.layout.name(table.name)} s WHERE {_has(table, '$1')}"
            f"{f' AND NOT ({_BLANK}) OR s.leads_to = $1' if table.name == STATES else ''}"
            for table in self.layout.of_devices
        )
        return bool(await connection.fetchval(f"SELECT EXISTS ({found})", device))

    async def count(self, connection: Connection, table: Table, devices: Sequence[str]) -> int:
        """How many rows of the devices a table has."""
        sql = f"SELECT pg_catalog.count(*) FROM {self.layout.name(table.name)} s WHERE {_has(table, '$1')}"
        return sum([await connection.fetchval(sql, device) for device in devices])

    async def insert(self, connection: Connection, batch: Batch) -> None:
        """Raises `Refused` for rows that the database does not take."""
        names = ", ".join(map(quoted, batch.columns))
        values = ", ".join(f"u.{quoted(name)}::{batch.table.types[name]}" for name in batch.columns)
        blank = await self._over_blank(connection, batch) if batch.table.name == STATES else ""
        # The types come without their modifiers, so that a text that is too long is refused, not cut.
        sql = (
            f"INSERT INTO {self.layout.name(batch.table.name)} AS s ({names}) OVERRIDING SYSTEM VALUE"
            f" SELECT {values} FROM {_given(batch)}{blank}"
        )
        async with _taken():
            done = await connection.execute(sql, *batch.arguments)
        if int(done.rpartition(" ")[2]) != len(batch.rows):
            raise Refused("the device was used meanwhile")

    async def same(self, connection: Connection, batch: Batch) -> int:
        """How many of the rows are there exactly so."""
        found = " AND ".join(
            f"s.{quoted(name)} = u.{quoted(name)}::{batch.table.types[name]}"
            if name in batch.table.key
            else f"s.{quoted(name)}::pg_catalog.text IS NOT DISTINCT FROM u.{quoted(name)}"
            for name in batch.columns
        )
        sql = f"SELECT pg_catalog.count(*) FROM {self.layout.name(batch.table.name)} s JOIN {_given(batch)} ON {found}"
        async with _taken():
            return int(await connection.fetchval(sql, *batch.arguments))

    async def recount(self, connection: Connection, device: str) -> None:
        """Counts the device's turns for the figures, as far as those of others are counted here."""
        await connection.execute(f"SELECT {self.layout.name('moorline_recount')}($1::pg_catalog.text)", device)

    async def advance(self, connection: Connection, table: Table) -> None:
        """Lets the sequences of a table go on behind its greatest numbers."""
        for column, sequence in table.sequences.items():
            greatest = f"SELECT pg_catalog.max(t.{quoted(column)}) AS last FROM {self.layout.name(table.name)} t"
            await connection.fetch(
                f"SELECT pg_catalog.setval($1::pg_catalog.text::pg_catalog.regclass, m.last) FROM ({greatest}) m"
                f" WHERE m.last > (SELECT q.last_value FROM {sequence} q)",
                sequence,
            )

    async def _over_blank(self, connection: Connection, batch: Batch) -> str:
        if self._ours is None:
            rows = await connection.fetch(_OURS, self.layout.name(STATES), list(BEFORE))
            self._ours = tuple(row[0] for row in rows)
        ours = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in self._ours if name in batch.columns)
        return f" ON CONFLICT ({DEVICE}) DO UPDATE SET {ours} WHERE {_BLANK}" if ours else ""


def _has(table: Table, device: str) -> str:
    kind = table.types[DEVICE]
    return f"s.{DEVICE} OPERATOR(pg_catalog.=) {device}::pg_catalog.text::{kind}"


def _given(batch: Batch) -> str:
    arrays = ", ".join(f"${number}::pg_catalog.text[]" for number in range(1, len(batch.columns) + 1))
    return f"unnest({arrays}) AS u ({', '.join(map(quoted, batch.columns))})"


class _taken:  # noqa: N801 - named like what contextlib has
    """Raises `Refused` for what the database says against a row, and our own errors for the rest."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.IntegrityConstraintViolationError):
            raise Refused(f"it breaks {error.constraint_name or 'a constraint'} of {error.table_name}") from error
        if isinstance(error, asyncpg.PostgresError) and translate(error) is None:
            raise Refused(without_values(str(error.args[0]))) from error

"""Export: the rows of conversations as lines, all of one moment, with bounded memory."""

# ruff: noqa: S608 - the names that are put into statements are the catalogue's, and quoted.
from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorline.errors import InvalidDeviceID
from moorline.moving.lines import Closing, Finish, Start, line_of, opening_line, row_line
from moorline.moving.tables import DEVICE, JOINS, LEADS_TO, STATES, Layout, Reference, Table, quoted, read_layout
from moorline_checkpoint.devices import is_uuid
from moorline_migrations.errors import store_errors

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline.moving.tables import Raw
    from moorline_checkpoint.database import Database
    from moorline_migrations.components import Migrations

AT_ONCE = 50
"""Rows that are fetched at a time."""

FILES = "conversation_files"
"""The table of which a single row may be as large as a file; its rows are fetched one at a time."""

PATIENCE = 3600.0
"""Seconds that the list of all devices may take."""

AS_TEXT = """
    SET LOCAL DateStyle = 'ISO, YMD';
    SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL extra_float_digits = 3;
    SET LOCAL bytea_output = 'hex';
"""
"""How a transaction writes and reads values as text: exactly, and in one way."""

_MOMENT = """
    SELECT coalesce(pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.statement_timestamp())
    WHERE pg_catalog.pg_is_in_recovery()
    UNION ALL
    SELECT pg_catalog.statement_timestamp() WHERE NOT pg_catalog.pg_is_in_recovery()
"""

_COMPONENT = """
    WITH RECURSIVE linked (device) AS (
        SELECT $1::pg_catalog.text
        UNION
        SELECT CASE WHEN s.{key}::pg_catalog.text = l.device THEN s.leads_to ELSE s.{key}::pg_catalog.text END
        FROM linked l
        JOIN {states} s ON s.leads_to IS NOT NULL
            AND (s.{key} OPERATOR(pg_catalog.=) {device} OR s.leads_to = l.device)
    )
    SELECT l.device FROM linked l
"""


@dataclass
class Counts:
    """What was exported until now."""

    conversations: int = 0
    rows: int = 0


async def export(
    database: Database, *, components: Sequence[Migrations], device_id: str | None, counts: Counts
) -> AsyncGenerator[bytes]:
    """The lines of the conversation that a device leads to, or of all conversations, as they were at one moment; with
    all of them, the shared tables of the components as well. Nothing is locked. Raises
    `InvalidDeviceID` if the device is unknown, and `ConfigurationError` for a component that is not among `components`.
    """
    async with database.connection() as connection:
        with store_errors():
            moment = await connection.fetchval(
                _MOMENT
            )  # before anything is read: all that was committed by then is in it
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(AS_TEXT)
                layout = await read_layout(connection, schema=database.schema, components=components)
                exporting = _Exporting(connection, layout, counts)
                devices = None if device_id is None else await exporting.linked(device_id)
                if devices is not None and not await exporting.known(devices):
                    raise InvalidDeviceID("Nothing is stored of this device.")
                yield opening_line(layout.components, moment)
                async for line in exporting.shared(devices):
                    yield line
                if devices is not None:
                    async for line in exporting.conversation(devices):
                        yield line
                else:
                    async for each in exporting.everybody():
                        async for line in exporting.conversation(each):
                            yield line
                yield line_of(Closing(conversations=counts.conversations))


class _Exporting:
    """One export, on a connection in its transaction."""

    def __init__(self, connection: Raw, layout: Layout, counts: Counts) -> None:
        self._connection = connection
        self._layout = layout
        self._counts = counts

    async def known(self, devices: Sequence[str]) -> bool:
        """Whether there is any row of the devices."""
        for device in devices:
            for table in self._layout.of_devices:
                where = is_device(table, device)
                found = f"SELECT EXISTS (SELECT 1 FROM {self._layout.name(table.name)} t WHERE {where})"
                if where is not None and await self._connection.fetchval(found, device):
                    return True
        return False

    async def shared(self, devices: Sequence[str] | None) -> AsyncGenerator[bytes]:
        """The shared rows that the devices' rows refer to; all of them if no devices are named."""
        for table in self._layout.shared:
            where = "true" if devices is None else referred_to(self._layout, table)
            if where is not None:
                names = ", ".join(f"t.{quoted(name)}" for name in table.key) or "1"
                arguments = () if devices is None else (list(devices),)
                async for record in self._rows(f"{rows_of(self._layout, table, where)} ORDER BY {names}", *arguments):
                    yield row_line(table.name, dict(record))

    async def conversation(self, devices: Sequence[str]) -> AsyncGenerator[bytes]:
        """All rows of the devices; nothing if there are none."""
        count = 0
        for device in devices:
            for table in self._layout.of_devices:
                if (where := is_device(table, device)) is None:
                    continue
                if JOINS in table.types:
                    where += f" AND t.{JOINS} IS NULL"
                names = ", ".join(f"t.{quoted(name)}" for name in table.key) or "1"
                sql = f"{rows_of(self._layout, table, where)} ORDER BY {names}"
                async for record in self._rows(sql, device, at_once=1 if table.name == FILES else AT_ONCE):
                    if not count:
                        yield line_of(Start(devices=list(devices)))
                    count += 1
                    yield row_line(table.name, dict(record))
        if count:
            self._counts.conversations += 1
            self._counts.rows += count
            yield line_of(Finish(rows=count))

    async def everybody(self) -> AsyncIterator[Sequence[str]]:
        """The devices of each conversation."""
        listed = " UNION ".join(
            f"SELECT t.{DEVICE}::pg_catalog.text AS device FROM {self._layout.name(table.name)} t"
            f" WHERE t.{DEVICE} IS NOT NULL AND t.{DEVICE}::pg_catalog.text <> ''"
            for table in self._layout.of_devices
        )
        async for record in self._rows(f"SELECT e.device FROM ({listed}) e ORDER BY 1"):
            linked = await self.linked(record["device"])
            if record["device"] == min(linked):
                yield linked

    async def linked(self, device: str) -> Sequence[str]:
        """The device with all that share a conversation with it, directly or through others."""
        states = self._layout.tables[STATES]
        if LEADS_TO not in states.types or is_device(states, device) is None:
            return [device]
        uuids = states.types[DEVICE] == "pg_catalog.uuid"
        hyphens = "'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
        as_key = f"CASE WHEN l.device ~ {hyphens} THEN l.device::pg_catalog.uuid END" if uuids else "l.device"
        sql = _COMPONENT.format(key=DEVICE, states=self._layout.name(STATES), device=as_key)
        return sorted(record["device"] for record in await self._connection.fetch(sql, device))

    async def _rows(self, sql: str, *arguments: object, at_once: int = AT_ONCE) -> AsyncIterator[Record]:
        async for record in self._connection.cursor(sql, *arguments, prefetch=at_once, timeout=PATIENCE):
            yield record


def rows_of(layout: Layout, table: Table, where: str) -> str:
    """A query for rows, each column as text."""
    columns = ", ".join(f"t.{quoted(name)}::pg_catalog.text AS {quoted(name)}" for name in table.types)
    return f"SELECT {columns} FROM {layout.name(table.name)} t WHERE {where}"


def is_device(table: Table, device: str) -> str | None:
    """The condition for rows of the device in $1; None if the table's key cannot hold it."""
    kind = table.types[DEVICE]
    if kind == "pg_catalog.uuid" and not is_uuid(device):
        return None
    return f"t.{DEVICE} OPERATOR(pg_catalog.=) $1::pg_catalog.text::{kind}"


def referred_to(layout: Layout, table: Table) -> str | None:
    """The condition for rows of a shared table that rows of the devices in $1 refer to, directly or through others;
    None if no table refers to it."""
    found = list(_referring(layout, table, "t"))
    return " OR ".join(found) or None


def _referring(layout: Layout, table: Table, alias: str) -> Iterator[str]:
    inner = f"{alias}t"
    for other in layout.tables.values():
        for reference in other.references:
            if reference.table == table.name and other != table and (cond := _concerns(layout, other, inner)):
                yield (
                    f"EXISTS (SELECT 1 FROM {layout.name(other.name)} {inner}"
                    f" WHERE {_same(reference, inner, alias)} AND ({cond}))"
                )


def _concerns(layout: Layout, table: Table, alias: str) -> str:
    if table.of_devices:
        kind = table.types[DEVICE]
        return (
            f"{alias}.{DEVICE}{'' if kind == 'pg_catalog.text' else '::pg_catalog.text'} = ANY ($1::pg_catalog.text[])"
        )
    return " OR ".join(_referring(layout, table, alias))


def _same(reference: Reference, alias: str, other: str) -> str:
    pairs = zip(reference.columns, reference.others, strict=True)
    return " AND ".join(f"{alias}.{quoted(own)} = {other}.{quoted(its)}" for own, its in pairs)

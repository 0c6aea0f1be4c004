"""Import: puts the rows of an export into a database, each conversation as a whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from moorline.errors import ConfigurationError, InvalidDeviceID, SchemaMismatch
from moorline.moving.exporting import AS_TEXT
from moorline.moving.lines import Closing, Finish, Line, Lines, Opening, Row, Start
from moorline.moving.tables import DEVICE, JOINS, LEADS_TO, STATES, Layout, Table, read_layout
from moorline.moving.writing import Batch, Refused, Tables
from moorline_checkpoint.device_key import DeviceKey
from moorline_checkpoint.devices import require_device_id

if TYPE_CHECKING:
    from moorline_checkpoint.database import Connection, Database
    from moorline_migrations.components import Migrations


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a conversation or of a shared row."""

    what: str
    """The conversation's devices, or the table and the key of the row."""
    result: Literal["imported", "unchanged", "refused"]
    """`unchanged`: it was there already, exactly so."""
    rows: int = 0
    why: str = ""


async def import_lines(
    database: Database, file: BinaryIO, *, components: Sequence[Migrations], tell: Callable[[Outcome], None]
) -> None:
    """Imports what an export holds, with bounded memory, and tells what became of each conversation.

    A conversation is imported in one transaction. If it is there already, it is unchanged; if its devices have anything
    else there, or the database does not take one of its rows, it is refused and the others go on. A shared row that is
    there in another form is refused as well, and so is each conversation that refers to it.

    Raises `BadExport` for a file that is cut off, damaged or of a newer version: the conversation at that place is not
    imported, those before it stay. `SchemaMismatch` if the schema is older than the export, `ConfigurationError` if it
    lacks a component or the role a right. Nothing in the file is ever run.
    """
    lines = Lines(file)
    opening = lines.opening()
    async with database.connection() as connection:
        layout = await read_layout(connection, schema=database.schema, components=components)
    _require_versions(opening, layout)
    importing = _Importing(database, Tables(layout), lines, tell)
    line = await importing.shared(next(lines))
    count = 0
    while isinstance(line, Start):
        await importing.conversation(line)
        count += 1
        line = next(lines)
    if lines.require(line, Closing).conversations != count:
        raise lines.bad("The export does not have as many conversations as its end says")
    lines.end()


def _require_versions(opening: Opening, layout: Layout) -> None:
    for component, version in opening.components.items():
        here = layout.components.get(component)
        if here is None:
            raise ConfigurationError(
                f"The export has rows of the component {component!r}, which this schema lacks: run `moorline migrate` "
                "with the app whose agents have it (--app)."
            )
        if here < version:
            raise SchemaMismatch(
                f"The export comes from version {version} of the component {component!r}, and this schema is at "
                f"version {here}: use the code of that version or newer, run `moorline migrate`, then import again."
            )


class _Importing:
    """One import."""

    def __init__(self, database: Database, tables: Tables, lines: Lines, tell: Callable[[Outcome], None]) -> None:
        self._database = database
        self._tables = tables
        self._layout = tables.layout
        self._lines = lines
        self._tell = tell
        self._key = DeviceKey(database)
        self._other: set[tuple[str, tuple[str | None, ...]]] = set()
        """The shared rows that are other ones here, by table and key."""

    async def shared(self, line: Line) -> Line:
        """Imports the shared rows that come first; returns the line that follows them."""
        grown: set[str] = set()
        async with self._database.transaction() as connection:
            await connection.execute(AS_TEXT)
            while isinstance(line, Row):
                table = self._table(line)
                if table.of_devices:
                    raise self._lines.bad(f"A row of {table.name} belongs to a conversation")
                outcome = await self._shared_row(connection, table, line.row)
                if outcome.result == "refused":
                    self._other.add((table.name, _key(table, line.row)))
                if outcome.result == "imported":
                    grown.add(table.name)
                self._tell(outcome)
                line = next(self._lines)
            for name in grown:
                await self._tables.advance(connection, self._layout.tables[name])
        return line

    async def conversation(self, start: Start) -> None:
        """Imports a conversation; afterwards its last line has been read."""
        what = ", ".join(start.devices)
        try:
            devices = [await self._device(device) for device in start.devices]
            async with self._database.transaction() as connection:
                await connection.execute(AS_TEXT)
                part = _Part(self._tables, connection, devices, await self._known(connection, devices))
                count = await self._rows(part)
        except Refused as refused:
            self._skip()
            self._tell(Outcome(what=what, result="refused", why=str(refused)))
        else:
            if not part.compares:
                for device in devices:
                    self._database.lock_changed(device)
            self._tell(Outcome(what=what, result="unchanged" if part.compares else "imported", rows=count))

    async def _known(self, connection: Connection, devices: Sequence[str]) -> bool:
        return any([await self._tables.known(connection, device) for device in devices])

    async def _rows(self, part: _Part) -> int:
        count = 0
        while isinstance(line := next(self._lines), Row):
            table = self._table(line)
            self._require_own(table, line.row, part.devices)
            await part.add(table, line.row)
            count += 1
        if self._lines.require(line, Finish).rows != count:
            raise self._lines.bad("A conversation does not have as many rows as its end says")
        await part.finish()
        return count

    def _skip(self) -> None:
        """Reads on to the end of the conversation, unless that was read last."""
        while not isinstance(self._lines.last, Finish):
            if not isinstance(next(self._lines), Row | Finish):
                raise self._lines.bad("A conversation has no end")

    async def _device(self, device: str) -> str:
        try:
            spelled = await self._key.spelled(require_device_id(device))
        except InvalidDeviceID as error:
            raise Refused(str(error)) from error
        if spelled != device:
            raise Refused("this database has another spelling of its device ID")
        return device

    def _table(self, line: Row) -> Table:
        table = self._layout.tables.get(line.table)
        if table is None:
            raise self._lines.bad("A row is of a table that does not move, or that this code does not know")
        return table

    def _require_own(self, table: Table, row: Mapping[str, str | None], devices: Sequence[str]) -> None:
        if not table.of_devices or row.get(DEVICE) not in devices:
            raise self._lines.bad("A row belongs to none of the devices of its conversation")
        if row.get(JOINS) is not None or row.get(LEADS_TO) not in (None, *devices):
            raise self._lines.bad("A device leads out of its conversation")
        self._require_referred(table, row)

    def _require_referred(self, table: Table, row: Mapping[str, str | None]) -> None:
        for reference in table.references:
            if (reference.table, tuple(row.get(name) for name in reference.columns)) in self._other:
                raise Refused(f"it refers to a row of {reference.table} that is another one here")

    async def _shared_row(self, connection: Connection, table: Table, row: Mapping[str, str | None]) -> Outcome:
        what = f"{table.name} {', '.join(value or '' for value in _key(table, row))}"
        await connection.execute("SAVEPOINT shared_row")
        try:
            self._require_referred(table, row)
            batch = Batch(table, columns_of(table, row), [row])
            there = await self._tables.same(connection, batch)
            if not there:
                await self._tables.insert(connection, batch)
        except Refused as refused:
            await connection.execute("ROLLBACK TO SAVEPOINT shared_row")
            return Outcome(what=what, result="refused", why=str(refused))
        finally:
            if connection.in_transaction:
                await connection.execute("RELEASE SAVEPOINT shared_row")
        return Outcome(what=what, result="unchanged" if there else "imported", rows=1)


class _Part:
    """The rows of one conversation, written or compared in batches."""

    def __init__(self, tables: Tables, connection: Connection, devices: Sequence[str], compares: bool) -> None:
        self._tables = tables
        self._connection = connection
        self.devices = devices
        self.compares = compares
        """Whether its devices have anything here already: then nothing is written."""
        self._batch: Batch | None = None
        self._counts: Counter[str] = Counter()

    async def add(self, table: Table, row: Mapping[str, str | None]) -> None:
        """One row more. Raises `Refused` if the database does not take it, or has others."""
        columns = columns_of(table, row)
        if self._batch and (self._batch.table != table or self._batch.columns != columns or self._batch.full):
            await self._write(self._batch)
            self._batch = None
        self._batch = self._batch or Batch(table, columns, [])
        self._batch.add(row)

    async def finish(self) -> None:
        """Writes what is left. Raises `Refused` if the devices have other rows than these."""
        if self._batch:
            await self._write(self._batch)
        for table in self._tables.layout.of_devices:
            if self.compares and self._counts[table.name] != await self._tables.count(
                self._connection, table, self.devices
            ):
                raise Refused(OTHERS)
            if self._counts[table.name] and table.sequences and not self.compares:
                await self._tables.advance(self._connection, table)
        if not self.compares:
            for device in self.devices:
                await self._tables.recount(self._connection, device)

    async def _write(self, batch: Batch) -> None:
        self._counts[batch.table.name] += len(batch.rows)
        if not self.compares:
            await self._tables.insert(self._connection, batch)
        elif await self._tables.same(self._connection, batch) != len(batch.rows):
            raise Refused(OTHERS)


OTHERS = "its devices have other rows here"


def columns_of(table: Table, row: Mapping[str, str | None]) -> tuple[str, ...]:
    """The columns of a row. Those that a backend added to a table of its own are left out where it has none of them;
    raises `Refused` for any other that is missing here."""
    missing = row.keys() - table.types.keys()
    if missing and table.name != STATES:
        raise Refused(f"{table.name} has no column {', '.join(sorted(missing))} here")
    return tuple(name for name in row if name in table.types)


def _key(table: Table, row: Mapping[str, str | None]) -> tuple[str | None, ...]:
    return tuple(row.get(name) for name in table.key)

"""`moorline export` and `moorline import`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from moorline.backend import replica_of
from moorline.context import stored_device_id
from moorline.embedded.roles import EmbeddedDatabase
from moorline.errors import ConfigurationError, ExportBroken
from moorline.moving.exporting import Counts, export
from moorline.moving.importing import Outcome, import_lines
from moorline.settings import Settings
from moorline_checkpoint.database import Database
from moorline_checkpoint.device_key import DeviceKey
from moorline_checkpoint.replica import UNREADABLE, Readers
from moorline_migrations.components import CORE, Migrations
from moorline_migrations.plain import one_line
from moorline_migrations.runner import check


async def export_to(
    file: Path | None, *, settings: Settings, components: Sequence[Migrations], device_id: str | None
) -> Counts:
    """Exports the conversation of a device, or all, into a new file that only its owner can read, or to standard
    output. If that fails, no file is left. Returns what was exported.

    What the replica breaks off is begun again on the primary, unless lines have gone to standard output. Raises
    `ExportBroken` if the database breaks off after that."""
    async with _database(settings, components) as database, _readers(settings, database) as readers:
        if device_id is not None:
            device_id = await DeviceKey(database).spelled(stored_device_id(device_id, settings))
        with _new_file(file) as out:

            async def write(source: Database) -> Counts:
                if file is not None:
                    out.seek(0)
                    out.truncate()
                counts, gone = Counts(), False
                try:
                    async with aclosing(
                        export(source, components=components, device_id=device_id, counts=counts)
                    ) as lines:
                        async for line in lines:
                            out.write(line)
                            gone = file is None
                except UNREADABLE as error:
                    if gone:
                        raise ExportBroken(error) from error
                    raise
                return counts

            counts, _ = await readers.read(write)
    return counts


async def import_from(file: Path, *, settings: Settings, components: Sequence[Migrations]) -> Counter[str]:
    """Imports a file, or standard input if it is `-`, and reports on standard error what was refused. Returns how many
    conversations and rows of shared tables had each result, also for what precedes an error."""
    results: Counter[str] = Counter()

    def tell(outcome: Outcome) -> None:
        results[outcome.result] += 1
        if outcome.result == "refused":
            sys.stderr.write(f"Refused: {one_line(outcome.what)}: {one_line(outcome.why)}\n")

    async with _database(settings, components) as database:
        with _opened(file) as lines:
            try:
                await import_lines(database, lines, components=components, tell=tell)
            finally:
                listed = ", ".join(f"{results[each]} {each}" for each in ("imported", "unchanged", "refused"))
                sys.stderr.write(f"{listed}.\n")
    return results


@asynccontextmanager
async def _database(settings: Settings, components: Sequence[Migrations]) -> AsyncIterator[Database]:
    """The database of the settings. In an embedded one, shared tables are the owner's to fill."""
    dsn = settings.database_url
    if dsn is None:
        embedded = await EmbeddedDatabase.open(settings.data_folder, schema=settings.schema_name)
        await embedded.migrate(components)
        dsn = embedded.owner
    database = Database(
        dsn, schema=settings.schema_name, pool_size=2, statement_cache_size=settings.statement_cache_size
    )
    try:
        async with database.connection() as connection:
            await check(connection, schema=settings.schema_name, components=(CORE,))
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _readers(settings: Settings, primary: Database) -> AsyncIterator[Readers]:
    readers = Readers(primary, replica_of(settings), max_lag=settings.replica_max_lag)
    try:
        yield readers
    finally:
        await readers.close()


@contextmanager
def _new_file(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _file_errors(file):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                yield out
        except BaseException:
            file.unlink(missing_ok=True)
            raise


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with _file_errors(file), file.open("rb") as lines:
        yield lines


@contextmanager
def _file_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConfigurationError(f"{file} exists already; name a new file.") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be used ({error.strerror or error}).") from error

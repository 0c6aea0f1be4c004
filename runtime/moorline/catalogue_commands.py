"""The commands of the appointments' catalogue: import, export."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import asyncpg
import typer

from moorline.app_option import App, settings_of
from moorline.errors import ConfigurationError
from moorline_migrations.components import SCHEDULING, SHIPPED
from moorline_migrations.errors import connect_errors, store_errors
from moorline_migrations.plain import one_line
from moorline_migrations.runner import check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Record

    from moorline.settings import Settings
    from moorline_agents.scheduling.catalogue_file import Catalogue
    from moorline_agents.scheduling.catalogue_store import Replaced

# ruff: noqa: PLC0415 - what a command needs is imported when it runs.

app = typer.Typer()
catalogue = typer.Typer(help="What can be booked, with whom and when, as a YAML file.", no_args_is_help=True)
app.add_typer(catalogue, name="catalogue")


@catalogue.command("import")
def import_catalogue(
    file: Annotated[Path, typer.Argument(help="The YAML file; - for standard input.", allow_dash=True)],
    app: App = None,
) -> None:
    """Offer what the file says, and nothing else. It is checked as a whole first, and appointments stay as they are."""
    from moorline_agents.scheduling.catalogue_file import Catalogue

    wanted = Catalogue.of_yaml(_read(file))
    done = asyncio.run(_replace(settings_of(app), wanted))
    typer.echo(f"Offered now: {len(wanted.services)} services by {len(wanted.providers)} providers.")
    for each in done.misfits:
        typer.echo(f"No longer fits, and is still booked: {one_line(str(each.appointment))}", err=True)


@catalogue.command("export")
def export_catalogue(app: App = None) -> None:
    """Print what is offered now as a file for `moorline catalogue import`."""
    typer.echo(asyncio.run(_read_catalogue(settings_of(app))).to_yaml(), nl=False)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read as text: {type(error).__name__}.") from error


async def _replace(settings: Settings, wanted: Catalogue) -> Replaced:
    from moorline_agents.scheduling.catalogue_store import CatalogueStore

    async with _connection(settings) as connection, connection.transaction():
        now = await connection.fetchval("SELECT pg_catalog.clock_timestamp()")
        return await CatalogueStore(connection, schema=settings.schema_name).replace(wanted, now=now)


async def _read_catalogue(settings: Settings) -> Catalogue:
    from moorline_agents.scheduling.catalogue_store import CatalogueStore

    # Of one moment, also while somebody imports another.
    async with (
        _connection(settings) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await CatalogueStore(connection, schema=settings.schema_name).read()


@asynccontextmanager
async def _connection(settings: Settings) -> AsyncIterator[Connection[Record]]:
    """A connection to tables that are as this code needs them, of the role that owns them: to the role that runs the
    application the catalogue is read-only."""
    dsn = settings.database_url
    if dsn is None:
        from moorline.embedded.roles import EmbeddedDatabase

        embedded = await EmbeddedDatabase.open(settings.data_folder, schema=settings.schema_name)
        await embedded.migrate(SHIPPED)
        dsn = embedded.owner
    with connect_errors():
        connection = await asyncpg.connect(dsn)
    try:
        with store_errors():
            await check(connection, schema=settings.schema_name, components=(SCHEDULING,))
            yield connection
    finally:
        await connection.close()

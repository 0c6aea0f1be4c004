"""The commands that move and copy: export, import, backup."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from moorline.app_option import App, settings_and_components, settings_of
from moorline.errors import ConfigurationError

# ruff: noqa: PLC0415 - what a command needs is imported when it runs.

app = typer.Typer()


@app.command("export")
def export_conversations(
    device: Annotated[str | None, typer.Argument(help="Whose conversation.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Argument(help="A new file; by default, standard output.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All conversations, and the catalogues of agents.")] = False,
    app: App = None,
) -> None:
    """Write a conversation, or all of them, as lines of JSON that `moorline import` reads. Exit status 1 if the device
    is unknown."""
    from moorline.moving.cli import export_to

    if everybody:
        # The only argument is the file then.
        if file is not None:
            raise typer.BadParameter("Name a device, or pass --all.")
        device, file = None, None if device is None else Path(device)
    elif device is None:
        raise typer.BadParameter("Name a device, or pass --all.")
    settings, components = settings_and_components(app)
    counts = asyncio.run(export_to(file, settings=settings, components=components, device_id=device))
    typer.echo(f"Exported {counts.conversations} conversations ({counts.rows} rows).", err=True)


@app.command("import")
def import_conversations(
    file: Annotated[Path, typer.Argument(help="What `moorline export` wrote; - for standard input.")],
    app: App = None,
) -> None:
    """Put exported conversations into the database, each as a whole. Exit status 1 if one was refused."""
    from moorline.moving.cli import import_from

    settings, components = settings_and_components(app)
    if asyncio.run(import_from(file, settings=settings, components=components))["refused"]:
        raise typer.Exit(1)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, which becomes a data folder: see MOORLINE_DATA.")],
    app: App = None,
) -> None:
    """Copy the embedded database while it is in use. To restore it, use the folder as MOORLINE_DATA."""
    from moorline.embedded.backup import back_up

    settings = settings_of(app)
    if settings.database_url is not None:
        raise ConfigurationError(
            "`moorline backup` is for the embedded database, and DATABASE_URL names a server of your own: back it up "
            "with its own programs, as docs/backup.md shows."
        )
    asyncio.run(back_up(settings.data_folder, folder))
    typer.echo(f"Backed up. To use the backup: MOORLINE_DATA={folder.absolute()}")

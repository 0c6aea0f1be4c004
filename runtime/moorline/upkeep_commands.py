"""The commands of upkeep: cleanup, stats."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from moorline.app_option import App, app_named, settings_of

if TYPE_CHECKING:
    from moorline.cleanup import CleanedUp
    from moorline.runtime import Moorline
    from moorline.settings import Settings
    from moorline.stats import Stats

# ruff: noqa: PLC0415 - what a command needs is imported when it runs.

app = typer.Typer()


@app.command()
def cleanup(app: App = None) -> None:
    """Drop expired locks, which are ignored already, count turns for `stats`, and remove what is older than
    MOORLINE_RETENTION_DAYS. Does nothing while another process does."""
    settings = settings_of(app)
    done = asyncio.run(_cleanup(settings))
    if done is None:
        typer.echo("Another process is cleaning up; nothing was done.")
        return
    typer.echo(f"Cleaned up {done.expired} expired sessions.")
    if settings.retention_days is not None:
        typer.echo(f"Removed {done.removed} rows older than {settings.retention_days} days.")


@app.command()
def stats(
    since: Annotated[
        str, typer.Option(help="A span such as 7d or 12h, or a date; from the beginning of its UTC day.")
    ] = "7d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    app: App = None,
) -> None:
    """Show figures: sessions and how long they lasted, turns and people, tokens and money."""
    found = asyncio.run(_stats(app_named(app), since))
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else found.to_text())


async def _cleanup(settings: Settings) -> CleanedUp | None:
    from moorline.backend import open_backend
    from moorline.cleanup import clean_up

    backend = await open_backend(settings)
    try:
        return await clean_up(backend, retention_days=settings.retention_days)
    finally:
        await backend.close()


async def _stats(app: Moorline, since: str) -> Stats:
    async with app as moorline:
        return await moorline.stats(since=since)

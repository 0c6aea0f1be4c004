"""The command that looks for what is wrong."""

import asyncio
from typing import Annotated

import typer

from moorline.app_option import App, settings_and_components

# ruff: noqa: PLC0415 - what a command needs is imported when it runs.

app = typer.Typer()


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    app: App = None,
) -> None:
    """Look for what is wrong, or will be, and say what to do. Changes nothing. Exit status 1 if something fails."""
    from moorline.doctor import shown
    from moorline.doctor.examination import examine

    found = asyncio.run(examine(*settings_and_components(app)))
    for line in [shown.as_json(found)] if as_json else shown.as_lines(found):
        typer.echo(line)
    if not shown.healthy(found):
        raise typer.Exit(1)

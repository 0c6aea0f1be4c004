"""The command graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moorline.app_option import App, app_named

# ruff: noqa: PLC0415 - what a command needs is imported when it runs.

app = typer.Typer()


@app.command()
def graph(
    png: Annotated[Path | None, typer.Option(help="Write a picture to this file instead.")] = None,
    app: App = None,
) -> None:
    """Print the manager graph as Mermaid, or draw it. Needs no database and no network."""
    from moorline.development import graph_of
    from moorline.graph_png import write_png

    drawn = graph_of(app_named(app)).get_graph()
    if png is None:
        typer.echo(drawn.draw_mermaid(), nl=False)
    else:
        write_png(drawn, png)
        typer.echo(f"Drawn: {png}")

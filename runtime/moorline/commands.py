"""The commands of `moorline`. Each reads its arguments and the settings, calls what does the work, and shows it."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from moorline.embedded import embedded_dsn
from moorline.logs import show_logs
from moorline.replay.player import Restart
from moorline.settings import Settings, load_settings
from moorline.store import open_store
from moorline_checkpoint.sessions import Session
from moorline_migrations import runner

app = typer.Typer(
    name="moorline",
    help="Keeps every conversation moored to its agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def chat(
    device: Annotated[str | None, typer.Option(help="Whose conversation; by default this data folder's.")] = None,
) -> None:
    """Talk to the agents, in the terminal or, between programs, a line a message and a line a reply."""
    from moorline.chat import converse, in_terminal  # noqa: PLC0415 (the other commands do not need it)

    settings = load_settings()
    show_logs(settings.log_level, quiet=in_terminal())
    converse(settings, device=device)


@app.command()
def migrate(
    status: Annotated[bool, typer.Option("--status", help="Only say where the schema stands.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would be run.")] = False,
) -> None:
    """Bring the database to the newest version of the schema."""
    if status and sql:
        raise typer.BadParameter("--status and --sql exclude each other.")
    settings = _settings()
    typer.echo(asyncio.run(_migrate(settings, status=status, sql=sql)), nl=not sql)


@app.command()
def cleanup() -> None:
    """Drop the locks of expired sessions. They count as none already; this tidies the table."""
    cleared = asyncio.run(_cleanup(_settings()))
    typer.echo(f"Cleaned up {cleared} expired sessions.")


@app.command()
def sessions() -> None:
    """List who holds which device, since when, and when that expires."""
    found = asyncio.run(_sessions(_settings()))
    if sys.stdout.isatty():
        _show_table(found)
        return
    for session in found:
        since, expires = session.locked_at.isoformat(), session.expires_at.isoformat()
        typer.echo("\t".join((session.device_id, session.active_agent, since, expires)))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded conversations, one a line.", exists=True, dir_okay=False)],
    restart: Annotated[Restart, typer.Option(help="What is dropped between turns.")] = Restart.RUNTIME,
    limit: Annotated[int | None, typer.Option(help="Play only the first ones.", min=1)] = None,
) -> None:
    """Play recorded conversations through the runtime and compare. Exit status 1 if anything differs."""
    from moorline.replay.cli import replay as play  # noqa: PLC0415 (the other commands do not need it)

    settings = _settings()
    if not asyncio.run(play(file, restart=restart, limit=limit, settings=settings)):
        raise typer.Exit(1)


def _settings() -> Settings:
    settings = load_settings()
    show_logs(settings.log_level, quiet=True)
    return settings


async def _migrate(settings: Settings, *, status: bool, sql: bool) -> str:
    dsn = settings.database_url or await embedded_dsn(settings.data_folder)
    schema = settings.schema_name
    if not status and not sql:
        applied = await runner.migrate(dsn, schema=schema)
        return "\n".join(f"Applied {version}." for version in applied) or "Nothing to apply."
    stand = await runner.status(dsn, schema=schema)
    if sql:
        return runner.script(schema=schema, current=stand.current)
    pending = "".join(f"\nTo apply: {version}" for version in stand.pending)
    return f"Schema {schema} is at version {stand.current}, this code knows {stand.newest}.{pending}"


async def _cleanup(settings: Settings) -> int:
    store = await open_store(settings)
    try:
        return await store.saver.cleanup_expired_sessions()
    finally:
        await store.close()


async def _sessions(settings: Settings) -> list[Session]:
    store = await open_store(settings)
    try:
        return [session async for session in store.saver.sessions()]
    finally:
        await store.close()


def _show_table(found: list[Session]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only a terminal needs it)
    from rich.table import Table  # noqa: PLC0415

    table = Table("device", "agent", "since", "expires")
    for session in found:
        since, expires = (f"{time:%Y-%m-%d %H:%M:%S %Z}" for time in (session.locked_at, session.expires_at))
        table.add_row(session.device_id, session.active_agent, since, expires)
    Console().print(table)

"""The commands of `moorline`. Each reads its arguments and the settings, has the work done, and shows the result."""

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moorline.app_option import App, app_named, settings_and_components, settings_of
from moorline.catalogue_commands import app as catalogue
from moorline.doctor.commands import app as doctor
from moorline.errors import ConfigurationError, InvalidDeviceID, InvalidMessage
from moorline.graph_commands import app as graph
from moorline.moving.commands import app as moving
from moorline.people_commands import UNKNOWN
from moorline.people_commands import app as people
from moorline.settings import Settings
from moorline.upkeep_commands import app as upkeep
from moorline_migrations import runner
from moorline_migrations.plain import moment, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from moorline.runtime import Moorline
    from moorline_checkpoint.database import Database
    from moorline_checkpoint.sessions import Session
    from moorline_checkpoint.transcripts import Transcript
    from moorline_migrations.components import Migrations

# Only commands that run turns import the code for it: that takes seconds, which --help and migrate need not spend.
# ruff: noqa: PLC0415

app = typer.Typer(
    name="moorline",
    help="Keeps every conversation moored to its agent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(catalogue)
app.add_typer(doctor)
app.add_typer(graph)
app.add_typer(moving)
app.add_typer(people)
app.add_typer(upkeep)


@app.command()
def chat(
    device: Annotated[str | None, typer.Option(help="The device to talk as; by default the data folder's.")] = None,
    app: App = None,
) -> None:
    """Talk to the agents, in the terminal or in a pipe, where each line is a message and each reply is a line."""
    from moorline.chat import converse, in_terminal

    converse(app_named(app, quiet=in_terminal()), device=device)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes, each with connections of its own.", min=1)] = 1,
    app: App = None,
) -> None:
    """Serve the chat page and the HTTP API. Stops with Ctrl-C, after the turns that run."""
    try:
        from moorline.http.server import serve as serve_http
    except ModuleNotFoundError as error:
        if error.name not in {"fastapi", "jwt", "limits", "uvicorn"}:
            raise
        raise ConfigurationError("The HTTP face is not installed; run `pip install 'moorline[http]'`.") from None

    app_named(app, quiet=False)
    with ExitStack() as stack:
        extensions = []
        try:
            from moorline.telemetry.serving import extend
            from moorline.telemetry.shared import shared_folder
        except ModuleNotFoundError as error:
            if error.name not in {"opentelemetry", "prometheus_client"}:
                raise
        else:
            stack.enter_context(shared_folder(workers))
            extensions.append(extend)
        serve_http(app=app or None, host=host, port=port, workers=workers, extensions=extensions)


@app.command()
def migrate(
    status: Annotated[bool, typer.Option("--status", help="Only show the versions of the schema.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would be run.")] = False,
    app: App = None,
) -> None:
    """Bring the tables of conversations and of the app's agents to their newest versions."""
    if status and sql:
        raise typer.BadParameter("--status and --sql cannot be combined.")
    settings, components = settings_and_components(app)
    typer.echo(asyncio.run(_migrate(settings, components, status=status, sql=sql)), nl=not sql)


@app.command()
def sessions(app: App = None) -> None:
    """List the sessions: device, agent, since when, and when they expire."""
    found = asyncio.run(_sessions(settings_of(app)))
    if sys.stdout.isatty():
        _show_table(found)
        return
    for session in found:
        since, expires = session.locked_at.isoformat(), session.expires_at.isoformat()
        _show_line((session.device_id, session.active_agent, since, expires))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded conversations, one per line.", exists=True, dir_okay=False)],
    restart: Annotated[
        Literal["none", "runtime", "process"], typer.Option(help="What is dropped between turns.")
    ] = "runtime",
    limit: Annotated[int | None, typer.Option(help="Play only the first ones.", min=1)] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report records that cannot be played, and go on.")
    ] = False,
    app: App = None,
) -> None:
    """Play recorded conversations on the app's database and compare. Exit status 1 if anything differs."""
    from moorline.replay.cli import replay as play
    from moorline.replay.player import Restart

    settings = settings_of(app)
    if not asyncio.run(play(file, restart=Restart(restart), limit=limit, skip_bad=skip_bad, settings=settings)):
        raise typer.Exit(1)


@app.command()
def load(  # noqa: PLR0917 - each is an option
    devices: Annotated[int, typer.Option(help="Conversations at once.", min=1)] = 100,
    turns: Annotated[int, typer.Option(help="Messages of each.", min=1)] = 5,
    latency: Annotated[float, typer.Option(help="Seconds of each answer of the echo's model.", min=0, max=10)] = 0.0,
    same_device: Annotated[bool, typer.Option("--same-device", help="All of them write to one device.")] = False,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Each message is delivered three times.")] = False,
    burst: Annotated[bool, typer.Option("--burst", help="Nobody waits for a reply before the next message.")] = False,
    within: Annotated[float, typer.Option(help="Seconds after which it stops with what there is.", min=1)] = 600.0,
    processes: Annotated[int, typer.Option(help="Processes that share the messages.", min=1, max=64)] = 1,
    http: Annotated[str | None, typer.Option(help="The address of a server to put under load instead.")] = None,
    app: App = None,
) -> None:
    """Put the runtime under load with agents that echo, or your app with its own model. Exit status 1 if a message had
    no reply, or one was lost, mixed up or answered twice."""
    from moorline.load.cli import load as put_under_load
    from moorline.load.conversations import Plan
    from moorline.load.echo import echo_moorline

    if http is not None and (app or processes > 1):
        raise typer.BadParameter(
            "--http cannot be combined with --app (nor MOORLINE_APP) or --processes: the server has its own."
        )
    if latency and (http or app):
        raise typer.BadParameter(
            "--latency is for the echo only; with --http, --app or MOORLINE_APP a model of yours answers."
        )
    plan = Plan(
        devices=devices, turns=turns, same_device=same_device, duplicates=duplicates, burst=burst, within=within
    )
    target = None
    if http is None:
        target = app_named(app) if app else echo_moorline(settings_of(None), latency=latency)
    if not asyncio.run(
        put_under_load(plan, moorline=target, app=app or None, latency=latency, processes=processes, url=http)
    ):
        raise typer.Exit(1)


@app.command()
def turns(
    device: Annotated[str | None, typer.Argument(help="Whose turns.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="The messages of all devices that failed too often.")] = False,
    app: App = None,
) -> None:
    """List a device's committed turns or, with --dead, the messages that were set aside."""
    if (device is None) != dead:
        raise typer.BadParameter("Name a device, or pass --dead.")
    for line in asyncio.run(_turns(app_named(app), device)):
        _show_line(line)


@app.command()
def transcript(
    device: Annotated[str, typer.Argument(help="Whose conversation.")],
    form: Annotated[Literal["md", "json"], typer.Option("--format", help="Markdown or JSON.")] = "md",
    app: App = None,
) -> None:
    """Print a conversation, to be read or to be processed."""
    from moorline.transcript_text import as_json, as_markdown

    found = asyncio.run(_transcript(app_named(app), device))
    typer.echo(as_json(device, found) if form == "json" else "\n".join(as_markdown(device, found)))


@app.command()
def recover(
    device: Annotated[str | None, typer.Option(help="With --message: the device of that message.")] = None,
    message: Annotated[str | None, typer.Option(help="A message that was set aside and shall be tried again.")] = None,
    app: App = None,
) -> None:
    """Finish the turns that crashed processes left behind, or retry a message that was set aside. Exit status 1 if that
    failed on any device."""
    if (device is None) != (message is None):
        raise typer.BadParameter("Pass --device and --message together.")
    lines, failed = asyncio.run(_recover(app_named(app), device, message))
    for line in lines:
        _show_line(line)
    if failed:
        typer.echo(f"Not recovered: {len(failed)}", err=True)
        for line in failed:
            _show_line(line, err=True)
        raise typer.Exit(1)


@app.command()
def tag(device: Annotated[str, typer.Argument(help="The device to find in the logs.")], app: App = None) -> None:
    """Print the tag that stands for a device in the logs."""
    typer.echo(asyncio.run(_tag(app_named(app), device)))


@app.command()
def revoke(
    device: Annotated[str, typer.Argument(help="The device whose tokens are refused from now on.")], app: App = None
) -> None:
    """Refuse all tokens that were given to a device until now (MOORLINE_DEVICE_AUTH=signed). Its conversation stays."""
    asyncio.run(_revoke(app_named(app), device))
    typer.echo("Revoked.")


async def _migrate(settings: Settings, components: "Sequence[Migrations]", *, status: bool, sql: bool) -> str:
    schema, dsn, embedded = settings.schema_name, settings.database_url, None
    if dsn is None:
        from moorline.embedded.roles import EmbeddedDatabase

        embedded = await EmbeddedDatabase.open(settings.data_folder, schema=schema)
        dsn = embedded.owner
    if not status and not sql:
        if embedded is None:
            applied = await runner.migrate(dsn, schema=schema, components=components)
        else:
            applied = await embedded.migrate(components)
        return "\n".join(f"Applied {version}." for version in applied) or "Nothing to apply."
    stand = await runner.status(dsn, schema=schema, components=components)
    if sql:
        current = {each.component: each.current for each in stand}
        return runner.script(schema=schema, current=current, components=components)
    lines = [
        f"Schema {schema}: {each.component} is at version {each.current}, this code knows {each.newest}."
        for each in stand
    ]
    return "\n".join([*lines, *(f"To apply: {version}" for each in stand for version in each.pending)])


async def _sessions(settings: Settings) -> "list[Session]":
    from moorline.backend import open_backend
    from moorline_checkpoint.sessions import live_sessions

    backend = await open_backend(settings)

    async def listed(database: "Database") -> "list[Session]":
        return [session async for session in live_sessions(database)]

    try:
        found, as_of = await backend.readers.read(listed)
        _tell_moment(as_of)
        return found
    finally:
        await backend.close()


def _tell_moment(as_of: "datetime | None") -> None:
    """Says of which moment an answer is, if a replica gave it."""
    if as_of is not None:
        typer.echo(f"As of {moment(as_of)}, from the replica.", err=True)


def _show_line(cells: "Sequence[str]", *, err: bool = False) -> None:
    """One line, whatever people and models have put into the cells."""
    typer.echo("\t".join(map(one_line, cells)), err=err)


def _show_table(found: "list[Session]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("device", "agent", "since", "expires")
    for session in found:
        since, expires = map(moment, (session.locked_at, session.expires_at))
        # A Text is shown as it is; in a str, rich would take what is in brackets for markup.
        table.add_row(Text(one_line(session.device_id)), Text(one_line(session.active_agent)), since, expires)
    Console().print(table)


async def _turns(app: "Moorline", device: str | None) -> list[tuple[str, ...]]:
    if device is None:
        async with app as moorline:
            letters = await moorline.dead_letters()
        _tell_moment(letters.as_of)
        return [
            (each.device_id, each.message_id, f"{each.attempts} attempts", each.error, each.received_at.isoformat())
            for each in letters
        ]
    return [
        (str(entry.record.turn_no), entry.record.agent or "manager", *entry.messages(), entry.record.reply)
        for entry in await _transcript(app, device)
    ]


async def _transcript(app: "Moorline", device: str) -> "Transcript":
    async with app as moorline:
        if not await moorline.known(device):
            raise InvalidDeviceID(UNKNOWN)
        found = await moorline.transcript(device)
    _tell_moment(found.as_of)
    return found


_Lines = list[tuple[str, ...]]


async def _recover(app: "Moorline", device: str | None, message: str | None) -> tuple[_Lines, _Lines]:
    """The replies, and the failures."""
    async with app as moorline:
        if device is None or message is None:
            found: _Lines = []
            failed: _Lines = []
            await moorline.recover(
                lambda whose, reply: found.append((whose, str(reply))),
                lambda whose, error: failed.append((whose, str(error))),
            )
            return found, failed
        reply = await moorline.requeue(device, message)
        if reply is None:
            raise InvalidMessage("No such message was set aside; `moorline turns --dead` lists those that were.")
        return [(device, str(each)) for each in (*reply.recovered, reply)], []


async def _tag(app: "Moorline", device: str) -> str:
    async with app as moorline:
        return await moorline.device_tag(device)


async def _revoke(app: "Moorline", device: str) -> None:
    async with app as moorline:
        await moorline.revoke(device)

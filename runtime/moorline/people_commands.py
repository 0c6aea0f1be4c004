"""The commands for people with several devices: link-code, link, unlink, devices, erase."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from moorline.app_option import App, app_named
from moorline.errors import InvalidDeviceID
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from moorline.people import LinkedDevice
    from moorline.runtime import Moorline

app = typer.Typer()

UNKNOWN = "No conversation is stored for this device; `moorline sessions` lists the devices that have a session."


@app.command("link-code")
def link_code(
    device: Annotated[str, typer.Argument(help="The device whose conversation another one shall join.")],
    app: App = None,
) -> None:
    """Print a code with which another device can join this one's conversation, once, within ten minutes."""
    typer.echo(asyncio.run(_link_code(app_named(app), device)))


@app.command()
def link(
    device: Annotated[str, typer.Argument(help="The device that joins.")],
    code: Annotated[str, typer.Argument(help="The code that the other device was given.")],
    app: App = None,
) -> None:
    """Let a device join the conversation of another, and list the devices that have it then."""
    _show(asyncio.run(_link(app_named(app), device, code)))


@app.command()
def unlink(device: Annotated[str, typer.Argument(help="The device that leaves.")], app: App = None) -> None:
    """Let a device leave the conversation that it shares. Exit status 1 if it shares none."""
    if not asyncio.run(_unlink(app_named(app), device)):
        typer.echo("The device shares no conversation.", err=True)
        raise typer.Exit(1)
    typer.echo("Unlinked.")


@app.command()
def devices(device: Annotated[str, typer.Argument(help="One of the devices.")], app: App = None) -> None:
    """List the devices that have the same conversation as this one, and when they joined it."""
    _show(asyncio.run(_devices(app_named(app), device)))


@app.command()
def erase(
    device: Annotated[str, typer.Argument(help="The device to erase.")],
    person: Annotated[
        bool, typer.Option("--person", help="Also the conversation that it shares, and all devices that have it.")
    ] = False,
    app: App = None,
) -> None:
    """Remove everything of a device, for good; what it said in a conversation that it shares stays there without its
    name. Exit status 1 if the device was unknown."""
    asyncio.run(_erase(app_named(app), device, person=person))
    typer.echo("Erased.")


def _show(found: tuple[LinkedDevice, ...]) -> None:
    for each in found:
        since = "" if each.linked_at is None else each.linked_at.isoformat()
        typer.echo(f"{one_line(each.device_id)}\t{since}")


async def _link_code(app: Moorline, device: str) -> str:
    async with app as moorline:
        return await moorline.link_code(device)


async def _link(app: Moorline, device: str, code: str) -> tuple[LinkedDevice, ...]:
    async with app as moorline:
        return await moorline.link(device, code)


async def _unlink(app: Moorline, device: str) -> bool:
    async with app as moorline:
        return await moorline.unlink(device)


async def _devices(app: Moorline, device: str) -> tuple[LinkedDevice, ...]:
    async with app as moorline:
        found = await moorline.devices(device)
        if not found:
            raise InvalidDeviceID(UNKNOWN)
        return found


async def _erase(app: Moorline, device: str, *, person: bool) -> None:
    async with app as moorline:
        if not await moorline.erase(device, scope="person" if person else "device"):
            raise InvalidDeviceID(UNKNOWN)

"""The option --app of the commands: which `Moorline` they are for, and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorline.logs import show_logs
from moorline.settings import Settings, load_settings
from moorline_migrations.components import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorline.runtime import Moorline
    from moorline_migrations.components import Migrations

# ruff: noqa: PLC0415 - without an app, nothing is imported that only turns need.

App = Annotated[
    str | None,
    typer.Option(
        "--app",
        envvar="MOORLINE_APP",
        help="Your Moorline, as module:name; by default one with the agents that ship.",
        show_default=False,
    ),
]


def app_named(name: str | None, *, quiet: bool = True) -> Moorline:
    """The app, or one with the agents that ship."""
    from moorline.app import find_app

    found = find_app(name or None)
    show_logs(found.settings.log_level, quiet=quiet)
    return found


def settings_of(app: str | None) -> Settings:
    """The settings of the app, or those of the environment."""
    if app:
        return app_named(app).settings
    settings = load_settings()
    show_logs(settings.log_level, quiet=True)
    return settings


def settings_and_components(app: str | None) -> tuple[Settings, Sequence[Migrations]]:
    """The settings, and the components of the app's agents or of those that ship."""
    if app:
        team = app_named(app)
        return team.settings, team.components
    return settings_of(None), SHIPPED

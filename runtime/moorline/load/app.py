"""The echo as an app, to put a server under load: `moorline serve --app moorline.load.app:moorline`."""

from moorline.load.echo import echo_moorline

moorline = echo_moorline()

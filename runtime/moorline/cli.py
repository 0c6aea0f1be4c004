"""The entry point of the command `moorline`; the commands are in `commands`, which needs the `cli` extra."""

import os
import sys

from moorline.errors import MoorlineError
from moorline_migrations.plain import one_line


def main() -> None:
    """Runs the command line. A `MoorlineError` becomes a line on standard error and exit status 1."""
    os.environ.setdefault("MOORLINE_TUNE_GC", "true")  # this process is ours, and so are those that it starts
    try:
        from moorline.commands import app  # noqa: PLC0415 (without the extra this fails, and says what to do)
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit("moorline: the command line is not installed; run `pip install 'moorline[cli]'`.")
    try:
        app()
    except MoorlineError as error:
        sys.exit(f"moorline: {one_line(' '.join(str(error).split()))}")

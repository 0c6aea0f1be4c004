"""The entry point of the command `moorline`: what it can do is in `commands`, which needs the `cli` extra."""

import os
import sys

from moorline.errors import MoorlineError


def main() -> None:
    """Runs the command line. An error that Moorline raises on purpose is a line on standard error, and status 1."""
    os.environ.setdefault("MOORLINE_GC_FREEZE", "true")  # the process is ours, and so are those that it starts
    try:
        from moorline.commands import app  # noqa: PLC0415 (without the extra this fails, and says what to do)
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit("moorline: the command line is not installed; run `pip install 'moorline[cli]'`.")
    try:
        app()
    except MoorlineError as error:
        sys.exit(f"moorline: {' '.join(str(error).split())}")

"""Runs the notebooks, each in a fresh kernel without settings. `python -m tests.notebooks` writes their outputs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
LONGEST = 120
"""Seconds that a cell may take on a busy machine."""

SETTINGS = re.compile("MOORLINE_|OPENAI_|DATABASE_URL|DEFAULT_SESSION_TTL|AWS_LAMBDA|VERCEL")
"""The variables that a user may have set."""

Notebook = Any
"""As nbformat reads it; it has no types."""


def read(file: Path) -> Notebook:
    return nbformat.read(file, as_version=4)


def executed(file: Path, *, data: Path) -> Notebook:
    """The notebook with the outputs of a fresh kernel, whose data folder is this one. Raises `CellExecutionError`."""
    notebook = read(file)
    with _environment({"MOORLINE_DATA": str(data), "PYTHONDONTWRITEBYTECODE": "1"}):
        client = NotebookClient(
            notebook,
            timeout=LONGEST,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute()
    return notebook


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """The environment that a kernel inherits: this one, without Moorline's settings."""
    before = dict(os.environ)
    for name in before:
        if SETTINGS.match(name):
            del os.environ[name]
    os.environ |= own
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def structure(notebook: Notebook) -> list[tuple[str, list[list[str]]]]:
    """The cells by their source, and of what kinds their outputs are; what they hold changes from run to run."""
    return [(cell.source, _kinds(cell.get("outputs", ()))) for cell in notebook.cells]


def _kinds(outputs: Sequence[Any]) -> list[list[str]]:
    # What is printed may come in one piece or in several.
    streams = {output.name for output in outputs if output.output_type == "stream"}
    shown = [sorted(output.data) for output in outputs if output.output_type in ("display_data", "execute_result")]
    failed = [["error"] for output in outputs if output.output_type == "error"]
    return [sorted(streams), *shown, *failed]


def write(file: Path) -> None:
    """Runs a notebook, and keeps its outputs, without what differs for no reason."""
    with TemporaryDirectory(prefix="moorline-") as folder:
        notebook = executed(file, data=Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, file)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or FILES):
        write(path)
        sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")

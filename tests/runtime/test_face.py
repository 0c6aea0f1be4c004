"""The names that a backend imports, from top-level packages: programs, type checkers and editors find them all."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline import errors

ROOT = Path(__file__).parents[2]
PACKAGES = ["moorline", "moorline_agents", "moorline_checkpoint", "moorline_migrations"]
FACE = """
    run_manager stream_manager Moorline Settings Reply Interrupt Resume TurnContext
    Event AgentStarted Asked HandedOver ModelFinished ModelStarted SessionChanged TextDelta TextWithdrawn
    ToolFinished ToolStarted TurnFailed TurnFinished TurnStarted UsageReported
    Agent GraphAgent handover_tools tool ToolContext ToolRefused ChatModel Model
    Session TranscriptEntry DeadLetter DeviceCheckpointer StrictSerializer Migrations
"""
DOCUMENTED = {
    "moorline_agents.scheduling",
    *PACKAGES,
    *(f"moorline.{room}" for room in ("cache", "embedded", "errors", "http", "load", "telemetry", "testing")),
}
"""What README and docs may import from."""

PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

PROGRAM = """
from moorline import Agent, AgentError, DeviceCheckpointer, Moorline, Reply, Settings, ToolContext, tool
from moorline.errors import TurnTimeout
from moorline_agents import GraphAgent
from moorline_checkpoint import DeviceCheckpointer as TheSame

async def answer(moorline: Moorline) -> Reply:
    reveal_type(await moorline.run("hello", {"device_id": "d1"}))
    reveal_type(Settings().turn_timeout)
    reveal_type(Agent)
    reveal_type(TheSame.from_conn_string)
    return await moorline.run(7, {})

from moorline import run_manger
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_table_is_there_once_and_type_checkers_see_the_same_ones(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    [choice] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [
        (each.module, alias.name, alias.asname)
        for each in choice.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    ]
    assert sorted(name for _, name, _ in seen) == module.__all__
    for home, name, shown_as in seen:
        assert shown_as == name, "a type checker takes it for private"
        assert getattr(module, name) is getattr(importlib.import_module(str(home)), name)
    assert set(module.__all__) <= set(dir(module))
    assert not hasattr(module, "run_manger")


def test_a_backend_needs_one_import() -> None:
    assert {*FACE.split(), *errors.__all__} <= set(importlib.import_module("moorline").__all__)


def test_a_type_checker_knows_the_names_and_what_they_are(tmp_path: Path) -> None:
    program = tmp_path / "backend.py"
    program.write_text(PROGRAM)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={ROOT / '.mypy_cache'}", "--no-pretty", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.findall(r"backend\.py:(\d+): (\w+): (.*)", checked.stdout)
    shown = {int(line): text for line, _, text in said}
    assert 'Revealed type is "moorline.reply.Reply"' in shown[8], checked.stdout
    assert 'Revealed type is "float"' in shown[9]
    assert "def (*, name: str, description: str" in shown[10]
    assert "moorline_checkpoint.saver.DeviceCheckpointer" in shown[11]
    faults = {int(line) for line, kind, _ in said if kind == "error"}
    assert faults == {12, 14}, checked.stdout


def code_blocks() -> Iterator[tuple[str, str]]:
    """The code in README, the pages of docs, and the notebooks: where it is, and the code itself."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        ):
            yield f"{page.relative_to(ROOT)}, block {number + 1}", block
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
            if cell["cell_type"] == "code":
                yield f"{notebook.relative_to(ROOT)}, cell {number + 1}", "".join(cell["source"])


@pytest.mark.parametrize("code", [pytest.param(code, id=where) for where, code in code_blocks()])
def test_what_the_pages_import_is_documented_and_there(code: str) -> None:
    tree = compile(code, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = {alias.name for alias in node.names if alias.name.partition(".")[0] in PACKAGES}
            assert ours <= DOCUMENTED
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in PACKAGES:
            assert node.module in DOCUMENTED
            for alias in node.names:
                assert alias.name in importlib.import_module(str(node.module)).__all__


async def test_the_code_in_the_readme_runs(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks run in order. One that begins with the name of a file is written to that file as well."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.syspath_prepend(tmp_path)
    ran = 0
    for where, code in code_blocks():
        if not where.startswith("README") or "fastapi" in code:
            continue
        if named := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / named[1]).write_text(code)
        result = eval(compile(code, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})  # noqa: S307 - our own page
        if inspect.isawaitable(result):
            await result
        ran += 1
    sys.modules.pop("orders", None)
    assert ran == 6
    assert capsys.readouterr().out.splitlines()[-1] == "Cancelled."

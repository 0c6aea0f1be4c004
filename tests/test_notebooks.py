"""The notebooks run from top to bottom."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from moorline_agents.scheduling.demo import seed_demo

FILES = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def cells(request: pytest.FixtureRequest) -> list[str]:
    """The code cells of a notebook."""
    notebook = json.loads(request.param.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


async def test_every_cell_runs(cells: list[str], dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    connection = await asyncpg.connect(dsn)
    await seed_demo(connection)
    await connection.close()
    names: dict[str, Any] = {}
    for cell in cells:
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 - our own notebook
        if inspect.isawaitable(result):
            await result
    assert names["first"] == names["again"]
    assert len(names["replies"]) == 100

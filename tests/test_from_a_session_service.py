"""docs/from-a-session-service.md: every line of its tables has a verdict, with its reason, and a test that exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "from-a-session-service.md").read_text(encoding="utf-8")
CELLS = re.compile(r"(?<!\\)\|")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [
    [cell.strip() for cell in CELLS.split(line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| in a session service |")
]


@cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_line_says_what_is_the_same_or_why_not_and_which_tests_show_it(row: list[str]) -> None:
    described, here, shown = row
    assert described
    assert here.startswith(("same", "*differs*"))
    for difference in here.split("*differs*")[1:]:
        assert len(difference.split()) > 5, "a difference has its reason"
    named = TEST.findall(shown)
    assert named, "no test shows it"
    assert TEST.sub("", shown).strip() == ""
    for file, name in named:
        assert name in defined_in(file), f"{file} has no {name}"


def test_the_page_has_its_lines() -> None:
    assert len(ROWS) > 50

"""docs/testing.md is true: its examples are tests that pass, and fail where the agent is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLE = "\n\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[:2])


def run_of(example: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the example in a pytest that knows nothing of our configuration."""
    (folder / "test_library.py").write_text(example)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:xdist", f"--rootdir={folder}"],
        cwd=folder,
        env=environment | {"DATABASE_URL": "", "MOORLINE_SCHEMA": ""},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_the_examples_of_the_page_pass(tmp_path: Path) -> None:
    run = run_of(EXAMPLE, tmp_path)
    assert "2 passed" in run.stdout, run.stdout


def test_the_example_fails_where_the_agent_is_wrong(tmp_path: Path) -> None:
    run = run_of(EXAMPLE.replace('== "sunday"', '== "monday"'), tmp_path)
    assert "1 failed, 1 passed" in run.stdout, run.stdout

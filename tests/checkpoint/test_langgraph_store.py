"""LangGraph's own tests of its PostgreSQL store, on ours. They are fetched when they are needed: they come with the
source distribution only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .langgraph_store import SKIPPED

HERE = Path(__file__).parent
PACKAGE = "langgraph-checkpoint-postgres"
SLOW = ("test_large_batches", "test_large_batches_async")
"""6,000 and 60,000 operations at once."""
THEIR_CONFTEST = "DEFAULT_URI, VECTOR_TYPES, CharacterEmbeddings = '', ['vector'], object\n"
"""What their tests import of their own, for those that are skipped."""


@pytest.fixture(scope="module")
def their_tests(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with their tests of the store, of the version that is installed."""
    name = f"{PACKAGE}-{version(PACKAGE)}".replace("-", "_", 2)
    kept = pytestconfig.cache.mkdir("langgraph-store") if pytestconfig.cache else tmp_path_factory.mktemp("kept")
    archive = kept / f"{name}.tar.gz"
    if not archive.exists():
        folder = tmp_path_factory.mktemp("fetched")
        wanted = (f"{PACKAGE}=={version(PACKAGE)}", "--no-deps", "--no-binary", ":all:", "--dest", str(folder))
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", *wanted], capture_output=True, text=True, check=False
        )
        if fetched.returncode:
            pytest.skip(f"The source distribution of {PACKAGE} cannot be fetched: {fetched.stderr[-300:]}")
        (folder / archive.name).rename(archive)
    tests = tmp_path_factory.mktemp("theirs") / "tests"
    tests.mkdir()
    (tests / "__init__.py").touch()
    (tests / "conftest.py").write_text(THEIR_CONFTEST)
    with tarfile.open(archive) as opened:
        found = opened.extractfile(f"{name}/tests/test_async_store.py")
        assert found is not None
        (tests / "test_async_store.py").write_bytes(found.read())
    return tests.parent


def run(their_tests: Path, dsn: str, *, source: str, options: tuple[str, ...]) -> dict[str, set[str]]:
    """Runs their tests; the names of those that passed, were skipped, or failed."""
    environment = {**os.environ, "FACTS_DSN": dsn, "FACTS_SOURCE": source, "PYTHONPATH": str(HERE)}
    result = their_tests / "result.xml"
    plugins = ("-p", "langgraph_store", "-p", "no:cacheprovider", "-p", "no:langsmith_plugin", "-p", "no:xdist")
    command = (sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-o", "asyncio_mode=auto")
    ran = subprocess.run(
        [*command, *plugins, f"--junitxml={result}", *options, "tests"],
        cwd=their_tests,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes: dict[str, set[str]] = {"passed": set(), "skipped": set(), "failed": set()}
    for case in ElementTree.parse(result).iter("testcase"):  # noqa: S314 - pytest's own
        what = {child.tag for child in case} & {"skipped", "failure", "error"}
        outcome = "skipped" if what == {"skipped"} else "failed" if what else "passed"
        outcomes[outcome].add(re.sub(r"\[.*", "", case.attrib["name"]))
    assert ran.returncode == 0, ran.stdout[-5000:]
    return outcomes


def test_the_store_passes_langgraphs_own_tests(their_tests: Path, dsn: str) -> None:
    deselected = [option for name in SLOW for option in ("--deselect", f"tests/test_async_store.py::{name}")]
    outcomes = run(their_tests, dsn, source="dsn", options=tuple(deselected))

    assert outcomes["failed"] == set()
    assert outcomes["skipped"] == set(SKIPPED)
    assert outcomes["passed"] >= {
        "test_abatch_order",
        "test_batch_search_ops",
        "test_store_ttl",
        "test_no_running_loop",
    }


@pytest.mark.laboratory
@pytest.mark.parametrize("source", ["dsn", "pool"])
def test_the_store_passes_all_of_them_on_its_own_connections_and_on_a_pool(
    their_tests: Path, dsn: str, source: str
) -> None:
    outcomes = run(their_tests, dsn, source=source, options=())

    assert outcomes["failed"] == set()
    assert outcomes["skipped"] == set(SKIPPED)
    assert outcomes["passed"] >= set(SLOW)

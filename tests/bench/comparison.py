"""Compares this checkout, as it is, with another revision of itself, in under six minutes: the same runs by turns, on
the same server. What counts is the ratio, run by run, with its spread: on a noisy machine absolute figures say little.
Sends and bytes are not timed but counted, and the same in every run, so they are run once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.figures import ratios
from tests.bench.lab import Lab, Results
from tests.bench.measures.history import early_growth
from tests.bench.server import execute

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "agents", "checkpoint", "migrations")
MIGRATE = "import asyncio, sys; from moorline_migrations import migrate; asyncio.run(migrate(sys.argv[1]))"

SPEED = "tests.bench.driving:speed"
SENDS = "tests.bench.measures.sends:hot"
CONVERSE = "tests.bench.measures.history:converse"
"""What is called in both trees: another revision has to have it as well."""


@dataclass(frozen=True)
class Tree:
    """A checkout whose code runs in this checkout's environment."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that put its packages before the installed ones."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(str(self.folder / package) for package in PACKAGES)}

    def migrate(self, dsn: str) -> None:
        """Makes its tables."""
        subprocess.run([sys.executable, "-c", MIGRATE, dsn], check=True, cwd=self.folder, env=self.environment)


@contextmanager
def checked_out(revision: str) -> Iterator[Tree]:
    """Checks the revision out into a folder of its own, while the block runs."""
    with TemporaryDirectory(prefix="bench-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield Tree(tree)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def compare(lab: Lab, revision: str) -> str:
    """A table of the results of both trees."""
    with checked_out(revision) as other:
        trees = {"here": Tree(ROOT), revision: other}

        def runs(*names: str) -> dict[str, Callable[[], dict[str, float]]]:
            return {
                f"{what} {name}": partial(_run, lab, tree, RUNS[what]) for what in names for name, tree in trees.items()
            }

        results = {**lab.alternate(runs("run", "saver")), **lab.alternate(runs("sends", "bytes"), rounds=1)}
    return _table(results, revision)


def _run(lab: Lab, tree: Tree, what: Callable[..., dict[str, float]]) -> dict[str, float]:
    with lab.databases.empty() as dsn:
        tree.migrate(dsn)
        execute(dsn, "CHECKPOINT")
        return what(dsn, partial(lab.call_in, folder=tree.folder, environment=tree.environment))


def _speed(dsn: str, call: Callable[..., dict[str, float]], *, contestant: str) -> dict[str, float]:
    return call(SPEED, dsn=dsn, contestant=contestant, devices=100, turns=10)


def _sends(dsn: str, call: Callable[..., dict[str, float]]) -> dict[str, float]:
    return call(SENDS, dsn=dsn, turns=50)


def _bytes(dsn: str, call: Callable[..., dict[str, float]]) -> dict[str, float]:
    return early_growth(dsn, partial(call, CONVERSE))


RUNS: Mapping[str, Callable[..., dict[str, float]]] = {
    "run": partial(_speed, contestant="moorline"),
    "saver": partial(_speed, contestant="saver"),
    "sends": _sends,
    "bytes": _bytes,
}


def _table(results: Results, revision: str) -> str:
    lines = [
        f"| path | figure | here | {revision} | ratio, run by run: median (lowest to highest) |",
        "|---|---|---|---|---|",
    ]
    for what, figures in (
        ("run", ("turns_per_second", "cpu_ms_per_turn", "p50", "p99")),
        ("saver", ("turns_per_second", "cpu_ms_per_turn")),
        ("sends", ("sends",)),
        ("bytes", ("bytes",)),
    ):
        for figure in figures:
            ours = [run[figure] for run in results[f"{what} here"]]
            theirs = [run[figure] for run in results[f"{what} {revision}"]]
            found = ratios(ours, theirs)
            lines.append(
                f"| {what} | {figure} | {median(ours):.4g} | {median(theirs):.4g} "
                f"| {median(found):.3f} ({min(found):.3f} to {max(found):.3f}) |"
            )
    return "\n".join(lines)

"""Runs the fault laboratory round after round, each with the next seed, and reports the results."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from math import inf
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COLUMNS = ("operations", "turns", "violations")
"""The figures that have their own columns in the table."""
SHOWN = 12
"""Lines that are shown of a failure."""
WITHOUT = ("test_checker.py", "test_history.py")
"""Tests of the laboratory itself."""


@dataclass
class Tally:
    """One fault over all rounds."""

    runs: int = 0
    failed: int = 0
    skipped: str = ""
    figures: dict[str, float | str] = field(default_factory=dict)

    def add(self, figures: Mapping[str, object]) -> None:
        """Counts are added up, measures keep their worst value, and "7 of 7" is added part by part."""
        for name, value in figures.items():
            before = self.figures.get(name)
            if isinstance(value, str):
                parts = [value] if before is None else [str(before), value]
                done, wanted = (sum(map(int, side)) for side in zip(*(p.split(" of ") for p in parts), strict=True))
                self.figures[name] = f"{done} of {wanted}"
            elif isinstance(value, float):
                self.figures[name] = max(value, before if isinstance(before, float) else 0.0)
            elif isinstance(value, int):
                self.figures[name] = value + (before if isinstance(before, int) else 0)

    def __str__(self) -> str:
        return _told(self.figures)

    def row(self) -> str:
        """The rest of its line in the table, after the fault's name."""
        columns = "".join(f"{self.figures.get(name, ''):>12}" for name in COLUMNS)
        others = {name: value for name, value in self.figures.items() if name not in COLUMNS}
        return f"{self.runs:6}{self.failed:8}{columns}  {self.skipped if not self.runs else _told(others)}"


class Progress:
    """Reports which fault is running and its result, and ends the run when the time is up."""

    def __init__(self, *, first: int, until: float) -> None:
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.first = first
        self.seed = first
        self.until = until
        self._begun = 0.0
        self._session: pytest.Session | None = None

    @property
    def failed(self) -> int:
        """Runs with a violation, or that broke."""
        return sum(tally.failed for tally in self.tallies.values())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be run."""
        if report.failed:
            self.tallies[report.nodeid].failed += 1
            _say(f"{report.nodeid}\n{report.longreprtext}")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Long tests that are the same for every seed come last, and only in the first round."""
        items.sort(key=lambda item: item.get_closest_marker("laboratory") is not None)
        if self.seed != self.first:
            items[:] = [item for item in items if item.get_closest_marker("laboratory") is None]

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Before each fault."""
        self._session = item.session
        self._begun = time.monotonic()
        _say(f"seed {self.seed:<4} {_fault(item.nodeid):78}", end="")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After set-up, run and teardown of each."""
        if report.when == "teardown" and time.monotonic() > self.until and self._session is not None:
            self._session.shouldstop = "the time is up"
        tally = self.tallies[_fault(report.nodeid)]
        if report.skipped:
            tally.skipped = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
            _say(tally.skipped)
        elif report.failed:
            tally.failed += 1
            found = re.search(r"(\d+) violations", report.longreprtext)
            tally.add({"violations": int(found[1]) if found else 0})
            told = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E")]
            _say("\n  ".join([f"FAILED in {report.when}", *told[:SHOWN]]))
        elif report.when == "call":
            tally.runs += 1
            run = Tally()
            run.add(dict(report.user_properties))
            tally.add(dict(report.user_properties))
            _say(f"{time.monotonic() - self._begun:5.1f} s  {run}")


def main() -> int:
    """The exit status: 0 if nothing was violated."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long (default: 20, or what the rounds take)")
    parser.add_argument("--rounds", type=int, help="how many rounds, each with the next seed, at most")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default: 1)")
    parser.add_argument("-k", dest="chosen", default="", metavar="EXPRESSION", help="only these, in pytest's words")
    options = parser.parse_args()
    minutes = options.minutes or (inf if options.rounds else 20)
    begun = time.monotonic()
    progress = Progress(first=options.seed, until=begun + 60 * minutes)
    logs = Path(tempfile.mkdtemp(prefix="faults-"))
    for number in range(options.rounds) if options.rounds else count():
        if time.monotonic() > progress.until:
            break
        before = progress.failed
        progress.seed = options.seed + number
        os.environ["FAULTS_SEED"] = str(progress.seed)
        folder = logs / f"seed-{progress.seed}"
        status = pytest.main(
            [
                str(HERE),
                *(f"--ignore={HERE / name}" for name in WITHOUT),
                *("-k", options.chosen, "-m", "", f"--basetemp={folder}"),
                *("-p", "no:terminal", "-p", "no:randomly"),
            ],
            plugins=[progress],
        )
        if progress.failed == before:
            shutil.rmtree(folder, ignore_errors=True)
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            break
    _summarize(progress, time.monotonic() - begun)
    if progress.failed:
        _say(f"The logs of failed rounds: {logs}")
    else:
        shutil.rmtree(logs)
    return 1 if progress.failed or not progress.tallies else 0


def _summarize(progress: Progress, seconds: float) -> None:
    heads = "".join(f"{name:>12}" for name in COLUMNS)
    width = max(map(len, progress.tallies), default=0) + 1
    _say(f"\n{'fault':{width}}{'runs':>6}{'failed':>8}{heads}  measures, at their worst")
    for fault, tally in sorted(progress.tallies.items()):
        _say(f"{fault:{width}}{tally.row()}")
    total = Tally()
    for tally in progress.tallies.values():
        total.runs += tally.runs
        total.failed += tally.failed
        total.add({name: tally.figures[name] for name in COLUMNS if name in tally.figures})
    _say(f"{'all':{width}}{total.row()}  {seconds / 60:.1f} minutes, seeds {progress.first} to {progress.seed}")


def _fault(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].removeprefix("test_")


def _told(figures: Mapping[str, object]) -> str:
    return ", ".join(f"{_number(value)} {name.replace('_', ' ')}" for name, value in figures.items())


def _number(value: object) -> str:
    return f"{value:.2f} s" if isinstance(value, float) else str(value)


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Measures Moorline and its neighbours: every row of docs/benchmarks in one run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from subprocess import CalledProcessError

from tests.bench.comparison import compare
from tests.bench.lab import Lab
from tests.bench.machine import facts
from tests.bench.measures import MEASURES
from tests.bench.report import Report
from tests.bench.server import serving

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
ROUNDS, PAIRS = 5, 10


def main() -> int:
    """The exit status: 0 if everything was measured, met or missed."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--quick", action="store_true", help="compare this checkout, as it is, with another revision of it instead"
    )
    parser.add_argument("--against", metavar="REVISION", help="with which one, by default main; implies --quick")
    parser.add_argument("--rounds", type=int, help=f"runs of each contestant (default: {ROUNDS}, compared {PAIRS})")
    parser.add_argument(
        "--output", type=Path, help="folder for table, plot and results (default: docs/benchmarks for a whole run)"
    )
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(MEASURES)
    if unknown := [name for name in chosen if name not in MEASURES]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    whole = not options.only and not options.rounds
    folder = options.output or (FOLDER if whole else None)
    with serving() as databases:
        compares = options.quick or options.against
        lab = Lab(databases=databases, rounds=options.rounds or (PAIRS if compares else ROUNDS), raw={})
        if compares:
            lab.measurement = "quick"
            sys.stdout.write(f"\n{compare(lab, options.against or 'main')}\n")
            return 0
        report = Report(facts=facts(databases), figures={}, raw=lab.raw, failed=[])
        for name in chosen:
            lab.measurement = name
            try:
                report.figures[name] = MEASURES[name](lab)
            except CalledProcessError as error:
                lab.say(f"broke: {error}")
                report.failed.append(name)
            if folder:  # after each measurement, so that an interrupted run leaves its results
                report.write(folder)
    sys.stdout.write(f"\n{report.table()}\n")
    if folder:
        sys.stdout.write(f"\nWritten to {folder}.\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())

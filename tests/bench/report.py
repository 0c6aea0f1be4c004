"""Writes down what a benchmark found. Everything is made from the results of its runs; nothing is written by hand.

`python -m tests.bench.report docs/benchmarks` makes the table and the plot again from the results in that folder.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.measures import MEASURES

PLOT = "benchmarks.png"

REASONS = "missed.md"
"""A file in the same folder that explains missed figures; it goes into the page as it is."""

BOUND = ("path", "what", "at", "median", "lowest to highest", "", "seen")
SHOWN = ("path", "what", "", "", "", "", "seen")


@dataclass(kw_only=True)
class Report:
    """All results of one run of the benchmark, by measurement."""

    facts: Mapping[str, str]
    figures: dict[str, list[Figure]]
    raw: dict[str, Any]
    failed: list[str]
    """Measurements that broke."""

    def write(self, folder: Path) -> None:
        """Writes `results.json`, the table in `README.md` and the plot to a folder, which is made if necessary."""
        from tests.bench.plot import plot

        folder.mkdir(parents=True, exist_ok=True)
        figures = {name: [asdict(figure) for figure in found] for name, found in self.figures.items()}
        results = {"facts": self.facts, "figures": figures, "failed": self.failed, "runs": self.raw}
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        plot(self._all(), folder / PLOT)
        reasons = folder / REASONS
        why = reasons.read_text(encoding="utf-8").strip() if reasons.exists() else ""
        (folder / "README.md").write_text(self._page(why), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Report:
        """What `write` wrote."""
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        figures = {
            name: [Figure(**{**figure, "values": tuple(figure["values"])}) for figure in found]
            for name, found in results["figures"].items()
        }
        return cls(facts=results["facts"], figures=figures, raw=results["runs"], failed=results["failed"])

    def table(self) -> str:
        """The figures with a bound, and those without, as Markdown."""
        bound = [figure for figure in self._all() if figure.met is not None]
        shown = [figure for figure in self._all() if figure.met is None]
        tables = [_table(BOUND, bound), f"{sum(bool(figure.met) for figure in bound)} of {len(bound)} figures are met."]
        if shown:
            tables.append(_table(SHOWN, shown))
        if self.failed:
            tables.append(f"**Could not be measured:** {', '.join(self.failed)}.")
        return "\n\n".join(tables)

    def _all(self) -> list[Figure]:
        return [figure for found in self.figures.values() for figure in found]

    def _page(self, why: str) -> str:
        facts = "\n".join(f"| {name} | {value} |" for name, value in self.facts.items())
        about = "\n\n".join(f"**{name}.** {_about(name)}" for name in self.figures)
        return PAGE.format(table=self.table(), plot=PLOT, why=why and f"\n{why}\n", facts=facts, about=about)


PAGE = """\
<!-- Written by scripts/bench from results.json. -->
# Benchmarks

{table}

![How far each figure keeps its bound]({plot})
{why}
## Where
| | |
|---|---|
{facts}

## How
Moorline and its neighbours run by turns against one PostgreSQL, in five rounds, every other one in the opposite order.
Each run is a fresh process with the same event loop, on a fresh database unless its measurement says otherwise. The
median of the rounds counts; ratios are taken between runs of the same round. What is not timed but counted, and comes
out the same each time, takes fewer rounds, as its measurement says.

No run but those of `first_token` includes HTTP: a scripted model implements each framework's own model interface (a
`Model`, a `BaseChatModel` of LangChain, a `Model` of openai-agents). It says how many of the person's messages it was
shown, and every reply is checked for that; after a run, whatever is durable is reopened and has to continue where it
was. Neighbours are set up as their documentation does it, with a pool of 20 open connections; Moorline has its default
settings, at most 5 connections, and `MOORLINE_TUNE_GC=true`, as the command `moorline` has it. The neighbours, and the
saver alone, leave Python's garbage collector as it is.

{about}

Run it with `scripts/bench`, which takes about half an hour and wants a quiet machine, or parts of it with
`scripts/bench --only saver,start`. `scripts/bench --quick` tells in under six minutes what a change costs: it compares
the checkout, as it is, with `main`, or with another revision (`--against REVISION`), run by run.
"""


def _table(head: Sequence[str], figures: Iterable[Figure]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(_row, figures)])


def _row(figure: Figure) -> str:
    if figure.at_least is not None:
        bound = f"≥ {_number(figure.at_least)}{figure.unit}"
    else:
        bound = "" if figure.at_most is None else f"≤ {_number(figure.at_most)}{figure.unit}"
    met = {True: "met", False: "**missed**", None: ""}[figure.met]
    low, high = _number(min(figure.values)), _number(max(figure.values))
    spread = f"{low} to {high}" if len(figure.values) > 1 else "one run"
    value = f"{_number(figure.value)}{figure.unit}"
    if figure.met is False and bound.endswith(f" {value}"):  # missed by less than is shown
        value = f"{figure.value:.4f}{figure.unit}"
    return f"| {figure.path} | {figure.what} | {bound} | {value} | {spread} | {met} | {figure.seen} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def _about(name: str) -> str:
    module = inspect.getmodule(MEASURES[name])
    return " ".join((inspect.getdoc(module) or "").split())


if __name__ == "__main__":
    at = Path(sys.argv[1])
    Report.read(at).write(at)

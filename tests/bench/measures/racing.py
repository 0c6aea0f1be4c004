"""Runs contestants one after another on the same work, and compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from tests.bench.contestants import CONTESTANTS
from tests.bench.driving import speed
from tests.bench.figures import ratios
from tests.bench.lab import Lab, Results


def race(lab: Lab, contestants: Sequence[str], **arguments: Any) -> Results:
    """The speed of each contestant that is installed, round after round."""
    installed = [name for name in contestants if CONTESTANTS[name].installed]
    for name in set(contestants) - set(installed):
        lab.say(f"left out, because it is not installed: {name}")
    return lab.alternate({name: run_of(lab, name, **arguments) for name in installed})


def run_of(lab: Lab, contestant: str, **arguments: Any) -> Callable[[], dict[str, float]]:
    """One run of `driving.speed`, on a database of its own."""

    def run() -> dict[str, float]:
        with lab.database() as dsn:
            result: dict[str, float] = lab.call(speed, contestant=contestant, dsn=dsn, **arguments)
            return result

    return run


def versus(results: Results, ours: str, theirs: str) -> tuple[float, ...]:
    """The ratios of one contestant's turns per second to another's."""
    return ratios(*([run["turns_per_second"] for run in results[name]] for name in (ours, theirs)))


def rates(results: Results, contestant: str) -> str:
    """A contestant's turns per second and processor time, as text."""
    rate, cpu = (median(run[name] for run in results[contestant]) for name in ("turns_per_second", "cpu_ms_per_turn"))
    return f"{rate:.0f}/s ({cpu:.1f} ms CPU a turn)"

"""100 devices with a model that takes 0.5 s: how long a person waits, against the 0.5 s that are the least possible.
Each device takes 10 turns, the next one as soon as it is answered. In one run the devices begin one after another
within 0.5 s, as people would; in the other all begin at the same moment, so that their turns keep arriving in heaps."""

from __future__ import annotations

from statistics import median

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.racing import run_of

MODEL = 0.5
"""Seconds."""


def measure(lab: Lab) -> list[Figure]:
    """p50 and p99 of a turn."""
    runs = {
        name: run_of(lab, "moorline", devices=100, turns=10, model_seconds=MODEL, spread=spread)
        for name, spread in (("spread", MODEL), ("heaps", 0.0))
    }
    results = lab.alternate(runs)
    return [
        Figure(
            path="run",
            what=f"100 devices {how}, a model that takes 0.5 s: {percentile} of a turn against 0.5 s",
            values=tuple(run[percentile] / MODEL for run in results[name]),
            at_most=bound,
            seen=f"{median(run[percentile] for run in results[name]):.3f} s",
        )
        for name, how, percentile, bound in (
            ("spread", "that begin within 0.5 s", "p50", 1.06),
            ("spread", "that begin within 0.5 s", "p99", 1.2),
            ("heaps", "that begin at one moment", "p50", 1.12),
            ("heaps", "that begin at one moment", "p99", 1.35),
        )
    ]

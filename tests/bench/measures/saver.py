"""A plain LangGraph graph of two nodes with the checkpointer dropped in, default durability: 100 threads at once take
10 turns each, against LangGraph's own savers. It involves no agents and no turns of Moorline."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.racing import race, rates, versus


def measure(lab: Lab) -> list[Figure]:
    """Turns a second."""
    results = race(lab, ["saver", "saver_memory", "saver_postgres"], devices=100, turns=10)
    ours = rates(results, "saver")
    what = "100 threads at once: turns/s against"
    return [
        Figure(
            path="saver",
            what=f"{what} {title}",
            values=versus(results, "saver", name),
            at_least=bound,
            seen=f"{ours} against {rates(results, name)}",
        )
        for name, title, bound in (
            ("saver_memory", "`InMemorySaver`", 0.9),
            ("saver_postgres", "`AsyncPostgresSaver`", 5.0),
        )
        if name in results
    ]

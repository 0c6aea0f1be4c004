"""500 devices at once with a model that takes 0.5 s: that would be 1,000 turns per second, more than a core can do."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.racing import race, rates, versus


def measure(lab: Lab) -> list[Figure]:
    """Turns a second."""
    results = race(lab, ["moorline", "swarm_memory"], devices=500, turns=6, model_seconds=0.5)
    if "swarm_memory" not in results:
        return []
    return [
        Figure(
            path="run",
            what="500 devices, a model that takes 0.5 s: turns/s against swarm on `InMemorySaver`",
            values=versus(results, "moorline", "swarm_memory"),
            at_least=2.0,
            seen=f"{rates(results, 'moorline')} against {rates(results, 'swarm_memory')}",
        )
    ]

"""Turns that go straight to the active agent, with a model that answers at once: 100 devices at once take 10 turns
each. In a first turn, which does not count, each device is routed (Moorline), handed over (swarm) or just begun
(openai-agents and the plain graph). The plain graph has two nodes, of which one does nothing and the other answers,
LangGraph's default durability, and no agents: what it takes is LangGraph's own, and nothing of it outlives the
process."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.racing import race, rates, versus

CONTESTANTS = ("moorline", "swarm_postgres", "swarm_memory", "openai_agents", "saver_memory")


def measure(lab: Lab) -> list[Figure]:
    """Turns a second."""
    results = race(lab, CONTESTANTS, devices=100, turns=10)
    ours = rates(results, "moorline")
    return [
        Figure(
            path="run",
            what=f"100 devices at once: turns/s against {title}",
            values=versus(results, "moorline", name),
            at_least=bound,
            seen=f"{ours} against {rates(results, name)}",
        )
        for name, title, bound in (
            ("swarm_postgres", "swarm on `AsyncPostgresSaver`", 9.0),
            ("swarm_memory", "swarm on `InMemorySaver`", 2.5),
            ("openai_agents", "openai-agents on `SQLAlchemySession`/asyncpg", 8.0),
            ("saver_memory", "a plain LangGraph graph on `InMemorySaver`, nothing durable", 1.0),
        )
        if name in results
    ]

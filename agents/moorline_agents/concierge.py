"""The concierge: answers what no other agent is there for, keeps no session, and hands over other agents' jobs."""

from __future__ import annotations

from moorline_agents.agent import Agent
from moorline_agents.model import Model

INSTRUCTIONS = (
    "You are the concierge of this business's chat. Greet people, say what you can help with, and answer small talk "
    "and general questions in one to three friendly sentences. Never make up facts about the business. "
    "When somebody wants something that another agent does, hand over to it at once."
)


def concierge(*, model: Model | None = None) -> Agent:
    """The agent for everything else; it takes no lock."""
    return Agent(
        name="concierge",
        description="greetings, small talk, general questions, and everything no other agent is for",
        instructions=INSTRUCTIONS,
        model=model,
        keeps_session=False,
    )

"""Routing: which agent is to answer a device that no agent holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from moorline_agents.asking import ask
from moorline_agents.calls import checked
from moorline_agents.control import ROUTE, named_agent, route_schema
from moorline_agents.messages import Message
from moorline_agents.model import Model
from moorline_agents.model_errors import ContextOverflow
from moorline_agents.run import AgentInfo, RunContext
from moorline_agents.window import clipped

logger = logging.getLogger("moorline.router")

INSTRUCTIONS = "You route a person's message to the agent that shall answer it. Call the tool `route`; do not answer."

LONGEST = 4_000
"""Characters of a message that the router model is shown; of a longer one its beginning and its end."""


class Router:
    """Asks a model to pick one of the agents. If the model names none of them, or has no room even for one message, the
    fallback agent answers."""

    def __init__(self, *, model: Model, agents: Sequence[AgentInfo], fallback: str) -> None:
        self._model = model
        self._names = frozenset(agent.name for agent in agents)
        self._schema = route_schema({agent.name: agent.description for agent in agents})
        self._fallback = fallback

    async def pick(self, text: str, context: RunContext) -> str:
        """The agent's name. No model is asked if there is only one agent. Raises `Stopped` if the turn is stopped."""
        if len(self._names) == 1:
            return self._fallback
        recalled = context.journal.recall(ROUTE)
        if recalled is not None:
            return self._named(recalled)
        messages: list[Message] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": clipped(text, LONGEST)},
        ]
        choice = {"type": "function", "function": {"name": ROUTE}}
        try:
            answer = await ask(
                self._model,
                messages,
                context=context,
                agent=ROUTE,
                tools=[self._schema],
                tool_choice=choice,
                shown=False,
            )
        except ContextOverflow:
            logger.warning("The router model has no room for a message of %s characters.", len(text))
            return self._fallback
        message = checked(answer.message)
        context.journal.note(ROUTE, message)
        return self._named(message)

    def _named(self, answer: Message) -> str:
        for call in answer.get("tool_calls", ()):
            name = named_agent(call["function"]["arguments"])
            if name in self._names:
                return name
        logger.warning("The router model named no known agent; %s answers.", self._fallback)
        return self._fallback
